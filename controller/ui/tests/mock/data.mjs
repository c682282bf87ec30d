// Made-up data for the double: four servers, each with a trouble of its own, and two weeks of history.
import { randomBytes } from 'node:crypto';

export const id = () => randomBytes(16).toString('hex');
/** An RFC 3339 time, so many seconds from now. */
export const instant = (seconds) => new Date(Date.now() + seconds * 1000).toISOString();

const DAY = 86400;

function server(name, change = {}) {
  return {
    id: id(), name, agent_id: id(), fingerprint: 'a3f1 09bc 77d2 e410 5c8a 91f0 d3b6 24ee', online: true, last_seen_at: instant(-4), version: '0.1.0', os: 'Debian GNU/Linux 12 (bookworm)',
    generation: { saved: 12, delivered: 12, applied: 12, error: null }, drift: [],
    destinations: [{ name: 'local', kind: 'local', place: '/srv/backstay' }, { name: 'offsite', kind: 's3', place: `s3.example.net/backups/${name}` }],
    accounts: ['acme', 'globex', 'initech', 'umbrella', 'hooli', 'stark', 'wayne'], schedule_count: 0, ...change,
  };
}

function plan(name, change = {}) {
  return {
    name, enabled: true, origin: 'controller', scope: 'full', accounts: 'all', when: 'daily 02:17 Europe/Berlin', destinations: ['local', 'offsite'],
    keep: { last: 7, daily: 14, monthly: 6 }, compression: 'auto', exclude: ['*/cache/*'], toml: `[schedule.${name}]\nscope = "full"\naccounts = "all"\nwhen = "daily 02:17 Europe/Berlin"\n`,
    next_run_at: instant(9 * 3600), last_run: null, revision: 1, ...change,
  };
}

const REFUSED = 'storing a pack at offsite\nputting data/3f/3f9a… into s3.example.net/backups\n403 Forbidden: RequestTimeTooSkewed, the clock of this server is 7 min slow';

function record(server, plan, started, state, snapshot) {
  const ran = !['missed', 'skipped'].includes(state);
  const seconds = 140 + (Math.abs(started) % 97);
  const failed = (destination) => ({ destination, state: 'failed', snapshot: null, stored_bytes: 0, error: REFUSED });
  const stored = (destination) => ({ destination, state: 'stored', snapshot, stored_bytes: 18_700_000, error: null });
  const copies = !ran ? [] : plan.destinations.map((d, i) => (state === 'failed' || (state === 'partial' && i > 0) ? failed(d) : stored(d)));
  const summaries = {
    ok: `Stored 48201 entries and 9 databases at ${plan.destinations.join(' and ')}.`,
    partial: 'Stored at local, but not at offsite: 403 Forbidden, the clock of this server is 7 min slow.',
    failed: 'Nothing was stored: no destination could be reached.',
    missed: 'The server was off when this was due.',
    skipped: 'The run before was still going when this was due.',
    cancelled: 'Ended by anna after 2 min.',
  };
  const log = ran
    ? [
        `run started ${instant(started)} by timer`,
        'previous snapshot found: 48197 entries',
        ...['acme.1001', 'globex.1002', 'initech.1003'].flatMap((account) => [`account ${account}: 16067 entries, 9 changed`, `account ${account}: database ${account.split('.')[0]}_shop dumped, 312 tables`]),
        ...copies.map((c) => (c.state === 'stored' ? `${c.destination}: snapshot ${c.snapshot} stored and read back` : `${c.destination}: FAILED ${c.error.replaceAll('\n', ': ')}`)),
        `run ended: ${state}`,
      ]
    : [];
  return {
    id: id(), server: { id: server.id, name: server.name }, schedule: plan.name, scope: plan.scope, trigger: 'timer', due_at: instant(started), started_at: instant(started),
    finished_at: ran ? instant(started + seconds) : instant(started), state, summary: summaries[state],
    counts: ran && state !== 'failed' ? { entries: 48201, unchanged: 47950, databases: 9, failed: state === 'partial' ? 1 : 0, total_bytes: 12_914_000_000, read_bytes: 214_000_000 } : { entries: 0, unchanged: 0, databases: 0, failed: 0, total_bytes: 0, read_bytes: 0 },
    copies, log,
  };
}

export function fleet() {
  const web1 = server('web1');
  const web2 = server('web2', { drift: [{ unit: 'backstay-job@nightly.timer', kind: 'edited', detail: '50-backstay.conf was changed by hand; it was put right.', noticed_at: instant(-1800) }, { unit: 'backstay-job@shop-db.timer', kind: 'masked', detail: 'An administrator masked this timer; it is left alone and does not run.', noticed_at: instant(-7200) }] });
  const web3 = server('web3', { online: false, last_seen_at: instant(-5 * 3600), os: 'Debian GNU/Linux 13 (trixie)', generation: { saved: 8, delivered: 7, applied: 7, error: null } });
  const mail = server('mail-and-archive.example.net', { generation: { saved: 5, delivered: 5, applied: 4, error: 'schedule.weekly: when = "weekly sun 25:00": 25:00 is not a time of day' }, accounts: [] });
  const servers = [web1, web2, web3, mail];
  const plans = new Map([
    [web1.id, [plan('nightly'), plan('shop-db', { scope: 'db', when: 'hourly :15', destinations: ['offsite'], keep: { last: 24, daily: 7 }, next_run_at: instant(1400) }), plan('sites', { scope: 'web', when: 'weekly sun 04:30 Europe/Berlin', enabled: false, next_run_at: null })]],
    [web2.id, [plan('nightly'), plan('by-hand', { origin: 'server', when: '30 3 * * 1-5', destinations: ['local'], keep: { last: 3 } })]],
    [web3.id, [plan('nightly', { next_run_at: instant(-3600) })]],
    [mail.id, [plan('weekly', { when: 'weekly sun 03:00', accounts: ['acme'] })]],
  ]);
  const runs = [];
  const snapshots = new Map();
  const state = (server, plan, back) => {
    if (server === web1 && plan.name === 'nightly' && back < 1) return 'partial';
    if (server === web2 && plan.name === 'nightly' && back < 2) return 'failed';
    if (server === web3 && back === 3) return 'missed';
    if (plan.name === 'shop-db' && back === 2) return 'skipped';
    if (plan.name === 'by-hand' && back === 4) return 'cancelled';
    return 'ok';
  };
  for (const server of servers) {
    for (const plan of plans.get(server.id)) {
      if (!plan.enabled) continue;
      for (let back = 0; back < 14; back += 1) {
        const snapshot = id();
        const run = record(server, plan, -7 * 3600 - back * DAY - plan.name.length * 600, state(server, plan, back), snapshot);
        runs.push(run);
        if (back === 0) plan.last_run = { id: run.id, state: run.state, started_at: run.started_at, finished_at: run.finished_at, summary: run.summary };
        const places = run.copies.filter((c) => c.state === 'stored').map((c) => c.destination);
        if (places.length === 0) continue;
        const key = `${server.id}/${plan.name}`;
        snapshots.set(key, [...(snapshots.get(key) ?? []), { id: snapshot, taken_at: run.started_at, destinations: places, total_bytes: run.counts.total_bytes, status: run.state === 'partial' ? 'partial' : 'complete' }]);
      }
    }
    server.schedule_count = plans.get(server.id).length;
  }
  runs.sort((a, b) => b.started_at.localeCompare(a.started_at));
  return { servers, schedules: plans, runs, snapshots };
}
