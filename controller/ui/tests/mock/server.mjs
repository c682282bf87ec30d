// A DOUBLE of the controller, for developing and testing the dashboard alone. It keeps everything in memory, answers
// the JSON API with made-up data, and serves the built files under the same Content-Security-Policy as the controller.
// Nothing here is shipped, and no test of the controller uses it.
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fleet, id, instant } from './data.mjs';

export const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
  "require-trusted-types-for 'script'; trusted-types svelte-trusted-html";
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml' };
const STEP_MS = 350;
const STEPS = 14;

/** Starts the double on a free port of loopback. `state`: 'fresh' (first run) or 'fleet' (several servers). */
export async function startMock({ dist, state = 'fleet', port = 0 }) {
  const world = { ...(state === 'fresh' ? { servers: [], schedules: new Map(), runs: [], snapshots: new Map() } : fleet()) };
  const users = state === 'fresh' ? [] : [{ id: id(), name: 'anna', role: 'ROOT', password: 'correct horse battery' }];
  const token = randomBytes(12).toString('hex');
  const sessions = new Map();
  const tasks = new Map();
  const operations = new Map();
  const joins = new Map();
  const streams = new Set();
  const timers = new Set();
  const faults = { status: new Map(), down: false };

  const later = (ms, run) => {
    const timer = setTimeout(() => {
      timers.delete(timer);
      run();
    }, ms);
    timers.add(timer);
  };
  const tell = (topic, data = {}) => {
    for (const stream of streams) stream.write(`event: ${topic}\ndata: ${JSON.stringify(data)}\n\n`);
  };
  const problem = (status, title, detail, errors = []) => ({ status, body: { title, detail, status, code: title.toLowerCase().replaceAll(' ', '_'), errors } });
  const plansOf = (server) => world.schedules.get(server) ?? [];
  const ref = (id) => ({ id, name: world.servers.find((s) => s.id === id)?.name ?? '' });
  const bare = (run) => ({ ...run, log: undefined });

  function change(operation, next, more = {}) {
    Object.assign(operation, { state: next, ...more, updated_at: instant(0) });
    tell('operation.changed', operation);
  }

  function order(server, kind, schedule, work) {
    const operation = { id: id(), kind, server_id: server.id, schedule, state: 'requested', detail: null, run_id: null, created_at: instant(0), updated_at: instant(0), expires_at: instant(600) };
    operations.set(operation.id, operation);
    tell('task.changed', {});
    if (server.online) {
      later(500, () => {
        change(operation, 'accepted');
        tell('task.changed', {});
      });
      later(900, () => {
        change(operation, 'running');
        work(operation);
      });
    }
    return { status: 202, body: { operation } };
  }

  function progress(server, kind, schedule, operation, phases, ended) {
    const total = 1_482_000_000;
    const task = { id: kind === 'restore' ? operation.id : id(), kind, server: { id: server.id, name: server.name }, schedule, phase: phases[0], entries: 0, bytes: 0, bytes_expected: total, started_at: instant(0) };
    tasks.set(task.id, task);
    tell('task.changed', {});
    const step = (n) => {
      if (n > STEPS) {
        tasks.delete(task.id);
        ended(task);
        tell('task.changed', {});
        return;
      }
      Object.assign(task, { bytes: Math.floor((total * n) / STEPS), entries: n * 3127, phase: phases[Math.min(phases.length - 1, Math.floor((n / STEPS) * phases.length))] });
      tell('run.progress', task);
      later(STEP_MS, () => step(n + 1));
    };
    later(STEP_MS, () => step(1));
  }

  function run(server, plan) {
    return order(server, 'run_now', plan.name, (operation) => {
      progress(server, 'run', plan.name, operation, ['scanning', 'dumping', 'reading', 'storing', 'verifying'], (task) => {
        const snapshot = id();
        const record = {
          id: task.id, server: { id: server.id, name: server.name }, schedule: plan.name, scope: plan.scope, trigger: 'request', due_at: null,
          started_at: task.started_at, finished_at: instant(0), state: 'ok',
          summary: `Stored 43778 entries and 3 databases at ${plan.destinations.join(' and ')}.`,
          counts: { entries: 43778, unchanged: 43012, databases: 3, failed: 0, total_bytes: 1_482_000_000, read_bytes: 9_400_000 },
          copies: plan.destinations.map((destination) => ({ destination, state: 'stored', snapshot, stored_bytes: 4_100_000, error: null })),
          log: ['run started by request', 'account acme.1001: 41203 entries', 'account acme.1001: database acme_shop, 312 tables', ...plan.destinations.map((d) => `${d}: snapshot ${snapshot} stored and read back`), 'run ended: ok'],
        };
        world.runs.unshift(record);
        plan.last_run = { id: record.id, state: 'ok', started_at: record.started_at, finished_at: record.finished_at, summary: record.summary };
        const key = `${server.id}/${plan.name}`;
        world.snapshots.set(key, [{ id: snapshot, taken_at: record.started_at, destinations: plan.destinations, total_bytes: 1_482_000_000, status: 'complete' }, ...(world.snapshots.get(key) ?? [])]);
        change(operation, 'done', { run_id: record.id, detail: record.summary });
        tell('run.finished', { id: record.id, server: record.server, schedule: plan.name, state: record.state });
      });
    });
  }

  function join_(code) {
    const name = joins.get(code);
    if (name === undefined) return problem(404, 'Unknown join code', 'The code was used, has expired, or never existed.');
    joins.delete(code);
    const server = {
      id: id(), name, agent_id: id(), fingerprint: 'copper-lantern-orbit-meadow-violin', online: true, last_seen_at: instant(0), version: '0.1.0', os: 'Debian GNU/Linux 12',
      generation: { saved: 0, delivered: 0, applied: 0, error: null }, drift: [],
      destinations: [{ name: 'local', kind: 'local', place: '/srv/backstay' }, { name: 'offsite', kind: 's3', place: 's3.example.net/backups/web1' }],
      accounts: ['acme', 'globex'], schedule_count: 0,
    };
    world.servers.push(server);
    later(600, () => tell('server.status', { id: server.id, online: true }));
    return { status: 200, body: {} };
  }

  function saved(server) {
    const generation = server.generation;
    server.schedule_count = plansOf(server.id).length;
    generation.saved += 1;
    tell('schedule.changed', { server_id: server.id });
    if (!server.online) return;
    later(800, () => {
      generation.delivered = generation.saved;
      tell('server.status', { id: server.id });
    });
    later(1500, () => {
      generation.applied = generation.saved;
      for (const plan of plansOf(server.id)) plan.next_run_at ??= plan.enabled ? instant(9 * 3600) : null;
      tell('server.status', { id: server.id });
      tell('schedule.changed', { server_id: server.id });
    });
  }

  function toml(plan) {
    return `[schedule.${plan.name}]\nscope = "${plan.scope}"\naccounts = ${JSON.stringify(plan.accounts)}\nwhen = "${plan.when}"\ndestinations = ${JSON.stringify(plan.destinations)}\n`;
  }

  function check(input) {
    const errors = [];
    if (/\b(32|99)\b/.test(input.when)) errors.push({ pointer: '/when', detail: `"${input.when}" is not a time that ever comes` });
    return errors.length === 0 ? undefined : problem(422, 'Not valid', errors[0].detail, errors);
  }

  function schedules(method, server, name, body, match) {
    const list = plansOf(server.id);
    const plan = list.find((p) => p.name === name);
    if (name === undefined && method === 'GET') return { status: 200, body: { items: list, next_cursor: null } };
    if (method === 'POST') {
      if (list.some((p) => p.name === body.name)) return problem(409, 'Name taken', `${server.name} already has a schedule named ${body.name}.`, [{ pointer: '/name', detail: 'is taken' }]);
      const bad = check(body);
      if (bad) return bad;
      const made = { ...body, origin: 'controller', toml: toml(body), next_run_at: null, last_run: null, revision: 1 };
      world.schedules.set(server.id, [...list, made]);
      saved(server);
      return { status: 201, body: made, etag: '"1"' };
    }
    if (plan === undefined) return problem(404, 'Not found', `${server.name} has no schedule named ${name}.`);
    const etag = `"${plan.revision ?? 1}"`;
    if (method === 'GET') return { status: 200, body: plan, etag };
    if (match !== etag) return problem(412, 'Changed meanwhile', 'Somebody else saved this schedule after you opened it.');
    if (method === 'DELETE') {
      world.schedules.set(server.id, list.filter((p) => p !== plan));
      saved(server);
      return { status: 204 };
    }
    const bad = check(body);
    if (bad) return bad;
    Object.assign(plan, body, { toml: toml(body), revision: (plan.revision ?? 1) + 1, next_run_at: null });
    saved(server);
    return { status: 200, body: plan, etag: `"${plan.revision}"` };
  }

  function serverRoute(method, parts, body, match) {
    const [serverId, area, name, verb] = parts;
    const server = world.servers.find((s) => s.id === serverId);
    if (server === undefined) return problem(404, 'Not found', 'There is no such server.');
    if (area === undefined) {
      if (method === 'GET') return { status: 200, body: server, etag: '"s"' };
      world.servers = world.servers.filter((s) => s !== server);
      tell('server.status', {});
      return { status: 204 };
    }
    if (area === 'restores') {
      if (body.confirm !== server.name) return problem(422, 'Not confirmed', "Type the server's name to confirm.", [{ pointer: '/confirm', detail: "is not the server's name" }]);
      return order(server, 'restore', body.schedule, (operation) => {
        progress(server, 'restore', body.schedule, operation, ['planning', 'reading', 'writing', 'databases', 'verifying'], () => {
          change(operation, 'done', { detail: 'Restored 43778 entries and 3 databases.' });
        });
      });
    }
    const plan = plansOf(server.id).find((p) => p.name === name);
    if (verb === 'run') return run(server, plan);
    if (verb === 'snapshots' && parts[4] === 'refresh') return order(server, 'list_snapshots', name, (operation) => later(700, () => change(operation, 'done')));
    if (verb === 'snapshots') return { status: 200, body: { items: world.snapshots.get(`${server.id}/${name}`) ?? [], refreshed_at: instant(-600) } };
    return schedules(method, server, name, body, match);
  }

  function runsRoute(query, runId) {
    if (runId !== undefined) {
      const run = world.runs.find((r) => r.id === runId);
      return run ? { status: 200, body: run } : problem(404, 'Not found', 'There is no such run.');
    }
    const kept = world.runs.filter(
      (r) => (!query.get('server') || r.server.id === query.get('server')) && (!query.get('schedule') || r.schedule === query.get('schedule')) && (!query.get('state') || r.state === query.get('state')),
    );
    const limit = Number(query.get('limit') ?? 50);
    const from = Number(query.get('cursor') || 0);
    const next = from + limit < kept.length ? String(from + limit) : null;
    return { status: 200, body: { items: kept.slice(from, from + limit).map(bare), next_cursor: next } };
  }

  function api(request, url, body) {
    const parts = url.pathname.split('/').slice(3).map(decodeURIComponent);
    const method = request.method;
    const key = /session=(\w+)/.exec(request.headers.cookie ?? '')?.[1];
    const user = sessions.get(key);
    const forced = faults.status.get(parts[0]);
    if (forced) return problem(forced, 'Made-up failure', 'The double was told to fail here.');
    if (method !== 'GET' && request.headers['x-backstay'] !== '1') return problem(403, 'Missing header', 'X-Backstay is missing.');
    const open = (who) => {
      const made = randomBytes(16).toString('hex');
      sessions.set(made, who);
      return `session=${made}; HttpOnly; SameSite=Strict; Path=/`;
    };
    const seen = (who) => ({ user: { id: who.id, name: who.name, role: who.role }, version: '0.1.0' });
    if (parts[0] === 'setup') {
      if (method === 'GET') return { status: 200, body: { needed: users.length === 0 } };
      if (body.token !== token || users.length > 0) return problem(403, 'Wrong set-up token', 'The token is not the one that the controller wrote to its journal.');
      const who = { id: id(), name: body.name, role: 'ROOT', password: body.password };
      users.push(who);
      return { status: 201, body: seen(who), cookie: open(who) };
    }
    if (parts[0] === 'session' && method === 'POST') {
      const who = users.find((u) => u.name === body.name && u.password === body.password);
      return who ? { status: 200, body: seen(who), cookie: open(who) } : problem(401, 'Not signed in', 'Name or password is wrong.');
    }
    if (user === undefined) return problem(401, 'Not signed in', 'Sign in first.');
    if (parts[0] === 'session') {
      if (method === 'GET') return { status: 200, body: seen(user) };
      sessions.delete(key);
      return { status: 204 };
    }
    if (parts[0] === 'tasks') {
      const waiting = [...operations.values()].filter((o) => ['requested', 'accepted'].includes(o.state));
      const shown = waiting.map((o) => ({ id: o.id, kind: o.kind === 'run_now' ? 'run' : o.kind === 'list_snapshots' ? 'list' : o.kind, server: ref(o.server_id), schedule: o.schedule, phase: o.state, entries: 0, bytes: 0, bytes_expected: null, started_at: o.created_at }));
      return { status: 200, body: { items: [...tasks.values(), ...shown], next_cursor: null } };
    }
    if (parts[0] === 'runs') return runsRoute(url.searchParams, parts[1]);
    if (parts[0] === 'operations') {
      const operation = operations.get(parts[1]);
      return operation ? { status: 200, body: operation } : problem(404, 'Not found', 'There is no such operation.');
    }
    if (parts[0] === 'join-codes') {
      const code = randomBytes(20).toString('base64url');
      joins.set(code, body.server_name);
      return { status: 201, body: { code, command: `curl -fsS -X POST http://${request.headers.host}/mock/join/${code}`, expires_at: instant(1800) } };
    }
    if (parts[0] === 'servers' && parts.length === 1) return { status: 200, body: { items: world.servers, next_cursor: null } };
    if (parts[0] === 'servers') return serverRoute(method, parts.slice(1), body, request.headers['if-match']);
    return problem(404, 'Not found', 'There is no such address.');
  }

  function file(url, response) {
    const wanted = normalize(url.pathname).replace(/^\/+/, '');
    const name = extname(wanted) === '' ? 'index.html' : wanted;
    response.setHeader('content-security-policy', POLICY);
    try {
      const content = readFileSync(join(dist, name));
      response.writeHead(200, { 'content-type': TYPES[extname(name)] ?? 'application/octet-stream', 'x-content-type-options': 'nosniff' }).end(content);
    } catch {
      response.writeHead(404).end();
    }
  }

  const server = createServer((request, response) => {
    const url = new URL(request.url, 'http://mock');
    if (faults.down && url.pathname.startsWith('/api/')) return void request.socket.destroy();
    if (url.pathname === '/api/v1/events') {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
      response.write('retry: 1000\n\nevent: hello\ndata: {}\n\n');
      streams.add(response);
      response.on('close', () => streams.delete(response));
      return;
    }
    let text = '';
    request.on('data', (part) => (text += part));
    request.on('end', () => {
      const joining = /^\/mock\/join\/([\w-]+)$/.exec(url.pathname);
      if (!url.pathname.startsWith('/api/') && !joining) return file(url, response);
      const answer = joining ? join_(joining[1]) : api(request, url, text === '' ? undefined : JSON.parse(text));
      const headers = { 'content-type': answer.status >= 400 ? 'application/problem+json' : 'application/json' };
      if (answer.etag) headers.etag = answer.etag;
      if (answer.cookie) headers['set-cookie'] = answer.cookie;
      response.writeHead(answer.status, headers).end(answer.body === undefined ? undefined : JSON.stringify(answer.body));
    });
  });
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));

  return {
    url: `http://127.0.0.1:${server.address().port}`,
    token,
    world,
    tell,
    /** Makes a part of the API fail with a status; 0 makes it work again. */
    fail: (part, status) => (status === 0 ? faults.status.delete(part) : faults.status.set(part, status)),
    /** Cuts every connection and refuses new ones, or lets them come again. */
    down: (is) => {
      faults.down = is;
      if (is) for (const stream of streams) stream.destroy();
    },
    startRun: (serverName, schedule) => {
      const it = world.servers.find((s) => s.name === serverName);
      run(it, plansOf(it.id).find((p) => p.name === schedule));
    },
    close: () => {
      for (const timer of timers) clearTimeout(timer);
      for (const stream of streams) stream.destroy();
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
