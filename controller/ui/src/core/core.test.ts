import { describe, expect, it, vi } from 'vitest';
import { createApi, path, Problem } from './api';
import { openLink, POLL_MS, serverOf, type LiveEvent, type Source } from './events';
import * as format from './format';
import { link, match, setupToken } from './router';
import { checkDraft, draftOf, inputOf, newDraft, previewToml, tomlTokens } from './schedule';
import { endTask, fraction, LINGER_MS, replaceTasks, secondsLeft, spokenStep, updateTask } from './tasks';
import type { Schedule, Server, Task } from './types';
import { buildWhen, defaultWhen, describeWhen, nextTimes, parseWhen, zoneOff } from './when';
import { copiesWord, fleetSentence, generationView, keepSentence, keepShort, operationEnded, runBadge, RUN_STATES } from './words';

const NOW = new Date('2026-05-05T12:00:00Z');

describe('api', () => {
  const answer = (status: number, body: unknown, headers: Record<string, string> = {}) =>
    new Response(body === undefined ? null : JSON.stringify(body), { status, headers });

  it('sends_the_header_on_every_change_and_never_on_a_read', async () => {
    const fetcher = vi.fn(async (_: string, __: RequestInit) => answer(200, { a: 1 }, { etag: '"7"' }));
    const api = createApi(fetcher);
    expect(await api.get('/x')).toEqual({ body: { a: 1 }, etag: '"7"' });
    await api.put('/x', { b: 2 }, '"7"');
    await api.del('/x');
    const headers = fetcher.mock.calls.map(([, init]) => init.headers as Record<string, string>);
    expect(headers.map((h) => h['x-backstay'])).toEqual([undefined, '1', '1']);
    expect(headers[1]?.['if-match']).toBe('"7"');
    expect(headers[2]?.['if-match']).toBeUndefined();
  });

  it('gives_the_problem_and_its_fields', async () => {
    const body = { title: 'Not valid', detail: 'say when', code: 'invalid', errors: [{ pointer: '/when', detail: 'no such day' }] };
    const api = createApi(async () => answer(422, body, { 'content-type': 'application/problem+json' }));
    const problem = await api.post('/x').catch((e: unknown) => e as Problem);
    expect(problem).toMatchObject({ status: 422, title: 'Not valid', message: 'Say when.', code: 'invalid' });
    expect((problem as Problem).field('when')).toBe('No such day.');
    expect((problem as Problem).field('whenever')).toBe('');
  });

  it('says_that_the_controller_is_away_when_no_answer_comes', async () => {
    const api = createApi(async () => Promise.reject(new TypeError('failed to fetch')));
    const problem = (await api.get('/x').catch((e: unknown) => e)) as Problem;
    expect(problem.unreachable).toBe(true);
    expect(problem.title).toBe('The controller does not answer');
  });

  it('survives_a_body_that_is_no_json', async () => {
    const api = createApi(async () => new Response('<h1>bad gateway</h1>', { status: 502 }));
    const problem = (await api.get('/x').catch((e: unknown) => e)) as Problem;
    expect(problem.detail).toContain('502');
  });

  it('tells_when_the_session_has_ended_but_not_when_a_password_is_wrong', async () => {
    const out = vi.fn();
    const api = createApi(async () => answer(401, {}), out);
    await api.post('/session', {}).catch(() => {});
    expect(out).not.toHaveBeenCalled();
    await api.get('/servers').catch(() => {});
    expect(out).toHaveBeenCalledOnce();
  });

  it('escapes_parts_of_a_path', () => {
    expect(path(['servers', 'a/b?c'], { limit: 5, cursor: '', state: null })).toBe('/servers/a%2Fb%3Fc?limit=5');
  });
});

describe('format', () => {
  it('shows_binary_units_with_one_decimal_and_never_rounds_up', () => {
    const shown = [0, 1023, 1024, 1_610_612_736, 1024 * 1024 - 1, -1, Number.NaN].map(format.bytes);
    expect(shown).toEqual(['0 B', '1023 B', '1.0 KiB', '1.5 GiB', '1023.9 KiB', '–', '–']);
  });

  it('shows_durations_in_two_parts', () => {
    expect([0, 59.4, 192, 3600, 3661, 90_000, 172_800].map(format.duration)).toEqual([
      '0 s', '59 s', '3 min 12 s', '1 h', '1 h 1 min', '1 d 1 h', '2 d',
    ]);
  });

  it('shows_ages_and_times_to_come', () => {
    const at = (seconds: number) => format.relative(new Date(NOW.getTime() + seconds * 1000).toISOString(), NOW);
    expect([0, -40, -720, -10_800, -172_800, 10_800].map(at)).toEqual([
      'just now', '40 s ago', '12 min ago', '3 h ago', '2 days ago', 'in 3 h',
    ]);
    expect(format.relative(null, NOW)).toBe('never');
    expect(format.relative('nonsense', NOW)).toBe('–');
  });

  it('names_days_in_the_zone_of_the_reader', () => {
    const place = { locale: 'en-GB', zone: 'Europe/Berlin' };
    expect(format.dayAndClock('2026-05-04T22:30:00Z', NOW, place)).toBe('Today, 00:30');
    expect(format.dayAndClock('2026-05-04T21:30:00Z', NOW, place)).toBe('Yesterday, 23:30');
    expect(format.day('2025-05-04T21:30:00Z', NOW, place)).toContain('2025');
  });
});

describe('when', () => {
  it('reads_back_what_it_writes', () => {
    for (const text of [
      'hourly :15', 'daily 02:00 Europe/Berlin', 'daily 23:59', 'weekly sun 04:30 UTC', 'monthly 28 00:00 America/New_York',
    ]) {
      const when = parseWhen(text);
      expect(when.frequency, text).not.toBe('custom');
      expect(buildWhen(when)).toBe(text);
    }
  });

  it('reads_short_forms_as_the_settings_do', () => {
    expect(buildWhen(parseWhen('hourly'))).toBe('hourly :00');
    expect(buildWhen(parseWhen('daily'))).toBe('daily 00:00');
    expect(buildWhen(parseWhen('weekly'))).toBe('weekly mon 00:00');
    expect(buildWhen(parseWhen('monthly UTC'))).toBe('monthly 1 00:00 UTC');
  });

  it('keeps_every_other_text_as_it_is', () => {
    for (const text of [
      '*/5 * * * *', 'daily 02:00,14:00', 'weekly mon,thu 02:00', 'monthly last 02:00', 'monthly 31 02:00', 'hourly 30',
      'daily 25:00', 'Mon..Fri 02:30', 'every 15 minutes', 'weekly 02:00',
    ]) {
      expect(parseWhen(text)).toMatchObject({ frequency: 'custom', custom: text });
      expect(buildWhen(parseWhen(text))).toBe(text);
    }
  });

  it('takes_a_zone_off_the_end_and_nothing_else', () => {
    expect(zoneOff('daily 02:00 Europe/Berlin')).toEqual({ text: 'daily 02:00', zone: 'Europe/Berlin' });
    expect(zoneOff('every 6 hours UTC')).toEqual({ text: 'every 6 hours', zone: 'UTC' });
    for (const text of ['Mon..Fri 02:30', '0 2 * * SUN', 'hourly :15']) expect(zoneOff(text)).toEqual({ text, zone: '' });
  });

  it('describes_choices_in_words', () => {
    expect(describeWhen(parseWhen('monthly 2 03:05'))).toBe('On the 2nd of every month at 03:05');
    expect(describeWhen(parseWhen('weekly tue 03:05 UTC'))).toBe('Every Tuesday at 03:05, UTC');
  });

  const iso = (text: string, from: string, many = 2) => nextTimes(parseWhen(text), new Date(from), many).map((d) => d.toISOString().slice(0, 16));

  it('finds_the_next_times', () => {
    expect(iso('hourly :15', '2026-05-05T12:20:00Z')).toEqual(['2026-05-05T13:15', '2026-05-05T14:15']);
    expect(iso('daily 02:00 UTC', '2026-05-05T02:00:00Z')).toEqual(['2026-05-06T02:00', '2026-05-07T02:00']);
    expect(iso('weekly mon 02:00 UTC', '2026-05-05T12:00:00Z')).toEqual(['2026-05-11T02:00', '2026-05-18T02:00']);
    expect(iso('monthly 1 02:00 UTC', '2026-12-05T12:00:00Z')).toEqual(['2027-01-01T02:00', '2027-02-01T02:00']);
    expect(nextTimes({ ...defaultWhen(), frequency: 'custom', custom: '* * * * *' }, NOW, 3)).toEqual([]);
    expect(nextTimes(defaultWhen('Mars/Olympus'), NOW, 3)).toEqual([]);
    expect(nextTimes({ ...defaultWhen(), clock: '24:00' }, NOW, 3)).toEqual([]);
  });

  it('follows_daylight_saving_time', () => {
    // Clocks in Berlin go back on 25 October 2026 and forward on 28 March 2027.
    expect(iso('daily 04:00 Europe/Berlin', '2026-10-24T12:00:00Z')).toEqual(['2026-10-25T03:00', '2026-10-26T03:00']);
    const [gap] = nextTimes(parseWhen('daily 02:30 Europe/Berlin'), new Date('2027-03-27T12:00:00Z'), 1);
    expect(gap?.toISOString().slice(0, 10)).toBe('2027-03-28');
  });
});

describe('router', () => {
  it('matches_every_address_of_the_dashboard', () => {
    const pages = ['/', '/servers', '/servers/s1', '/backups', '/backups/schedules', '/backups/schedules/new', '/backups/schedules/s1/a.b',
      '/backups/history', '/backups/history/r1', '/backups/restore', '/backups/restore/o1', '/setup', '/login'].map((p) => match(p).page);
    expect(pages).toEqual(['servers', 'servers', 'server', 'schedules', 'schedules', 'schedule-new', 'schedule',
      'history', 'history', 'restore', 'operation', 'setup', 'login']);
  });

  it('refuses_what_it_does_not_know', () => {
    for (const wrong of ['/x', '/servers/a/b', '/backups/schedules/a', '/backups/schedules/a/b/c', '/login/x', '/%E0%A4%A']) {
      expect(match(wrong).page).toBe('unknown');
    }
  });

  it('writes_addresses_without_empty_filters', () => {
    expect(link(['backups', 'history'], { server: '', state: 'failed' })).toBe('/backups/history?state=failed');
    expect(match(link(['servers', 'a b/c']))).toEqual({ page: 'server', id: 'a b/c' });
  });

  it('finds_the_set_up_token_in_both_forms', () => {
    expect([setupToken('#abc'), setupToken('#token=abc'), setupToken(''), setupToken('#a%2Bb')]).toEqual(['abc', 'abc', '', 'a+b']);
  });
});

describe('words', () => {
  const server = (change: Partial<Server>): Server => ({
    id: 's', name: 'web1', online: true, last_seen_at: NOW.toISOString(), generation: { saved: 1, delivered: 1, applied: 1 },
    agent_id: '', fingerprint: '', version: '', os: '', drift: [], destinations: [], accounts: [], schedule_count: 0, ...change,
  });

  it('gives_every_run_state_its_own_word_and_shape', () => {
    const badges = RUN_STATES.map(runBadge);
    expect(new Set(badges.map((b) => b.word)).size).toBe(RUN_STATES.length);
    expect(new Set(badges.map((b) => b.icon)).size).toBe(RUN_STATES.length);
    expect(runBadge('something_new')).toMatchObject({ word: 'something_new', tone: 'idle' });
  });

  it('says_when_a_copy_is_missing', () => {
    const copy = (state: 'stored' | 'failed') => ({ destination: 'd', state, stored_bytes: 0 });
    expect(copiesWord({ copies: [copy('stored'), copy('failed')] })).toBe('1 of 2 copies');
    expect(copiesWord({ copies: [copy('stored')] })).toBe('1 copy');
    expect(copiesWord({ copies: [] })).toBe('no copy');
  });

  it('follows_a_configuration_from_saved_to_applied', () => {
    const word = (generation: Server['generation'], online = true) => generationView(generation, online).badge.word;
    expect(word({ saved: 0, delivered: 0, applied: 0 })).toBe('Nothing saved yet');
    expect(word({ saved: 4, delivered: 3, applied: 3 })).toBe('Delivering 4');
    expect(word({ saved: 4, delivered: 4, applied: 3 })).toBe('Applying 4');
    expect(word({ saved: 4, delivered: 4, applied: 4 })).toBe('Applied 4');
    expect(word({ saved: 4, delivered: 4, applied: 3, error: 'bad calendar' })).toBe('4 refused');
    expect(word({ saved: 5, delivered: 4, applied: 3, error: 'bad calendar' })).toBe('Delivering 5');
    expect(generationView({ saved: 4, delivered: 3, applied: 3 }, false).badge.tone).toBe('warning');
  });

  it('is_never_more_cheerful_than_the_fleet', () => {
    expect(fleetSentence([server({})], NOW)).toBe('web1 is connected.');
    expect(fleetSentence([server({}), server({ online: false, last_seen_at: null, name: 'web2' })], NOW)).toBe('web2 never connected.');
    const drifted = server({ drift: [{ unit: 'u', kind: 'k', detail: 'd', noticed_at: '' }] });
    expect(fleetSentence([drifted, server({})], NOW)).toBe('All 2 servers are connected. 1 server has drift.');
  });

  it('says_what_is_kept', () => {
    expect(keepSentence({ last: 7, daily: 14, monthly: 6 })).toBe('7 newest, 14 daily, 6 monthly');
    expect(keepSentence({})).toBe('everything');
    expect(keepShort({ last: 7, monthly: 6, within: '30d' })).toBe('7 newest · 6m · 30d');
  });

  it('knows_when_an_operation_is_over', () => {
    expect(['requested', 'accepted', 'running', 'done', 'failed', 'expired'].map(operationEnded)).toEqual([false, false, false, true, true, true]);
  });
});

describe('tasks', () => {
  const task = (change: Partial<Task> = {}): Task => ({
    id: 't1', kind: 'run', server: { id: 's', name: 'web1' }, schedule: 'nightly', phase: 'reading', entries: 1,
    bytes: 0, bytes_expected: 1000, started_at: NOW.toISOString(), ...change,
  });

  it('measures_speed_and_remaining_time', () => {
    let list = replaceTasks([], [task()], 0);
    list = updateTask(list, task({ bytes: 100 }), 1_000);
    list = updateTask(list, task({ bytes: 200 }), 2_000);
    expect(list[0]?.speed).toBe(100);
    expect(secondsLeft(list[0]!)).toBe(8);
    expect(fraction(list[0]!)).toBe(0.2);
    expect(spokenStep(list[0]!)).toBe(0);
  });

  it('never_claims_to_be_complete_before_it_ended', () => {
    expect(fraction(replaceTasks([], [task({ bytes: 5000 })], 0)[0]!)).toBe(0.99);
    expect(fraction(replaceTasks([], [task({ bytes_expected: null })], 0)[0]!)).toBeUndefined();
  });

  it('drops_an_order_when_its_run_has_begun_and_keeps_how_a_run_ended', () => {
    let list = replaceTasks([], [task({ id: 'order', phase: 'requested' })], 0);
    list = replaceTasks(list, [task()], 1_000);
    expect(list.map((t) => t.id)).toEqual(['t1']);
    list = endTask(list, 't1', 'failed', 2_000);
    list = updateTask(replaceTasks(list, [task({ bytes: 900 })], 2_100), task({ bytes: 950 }), 2_200);
    expect(list).toMatchObject([{ id: 't1', endedAt: 2_000, result: 'failed' }]);
  });

  it('shows_what_ended_for_a_moment_and_then_forgets_it', () => {
    let list = replaceTasks([], [task()], 0);
    list = replaceTasks(list, [], 1_000);
    expect(list.map((t) => t.endedAt)).toEqual([1_000]);
    expect(replaceTasks(list, [], 1_000 + LINGER_MS - 1)).toHaveLength(1);
    expect(replaceTasks(list, [], 1_000 + LINGER_MS)).toHaveLength(0);
  });

  it('starts_measuring_again_when_the_count_starts_again', () => {
    let list = replaceTasks([], [task({ bytes: 900 })], 0);
    list = updateTask(list, task({ bytes: 10 }), 1_000);
    expect(list[0]?.speed).toBe(0);
  });
});

describe('events', () => {
  class Stream implements Source {
    readyState = 0;
    listeners = new Map<string, (event: { data?: unknown }) => void>();
    addEventListener(type: string, listener: (event: { data?: unknown }) => void) {
      this.listeners.set(type, listener);
    }
    close() {
      this.readyState = 2;
    }
    hear(type: string, data?: string) {
      this.listeners.get(type)?.({ data });
    }
  }

  function harness() {
    const streams: Stream[] = [];
    const states: string[] = [];
    const heard: LiveEvent[] = [];
    let timer: (() => void) | undefined;
    let polls = 0;
    const end = openLink({
      open: () => {
        const stream = new Stream();
        streams.push(stream);
        return stream;
      },
      onEvent: (event) => heard.push(event),
      onState: (state) => states.push(state),
      poll: () => (polls += 1),
      setTimer: (run, ms) => {
        expect(ms).toBe(POLL_MS);
        timer = run;
        return 1;
      },
      clearTimer: () => (timer = undefined),
    });
    const fire = () => {
      const run = timer;
      timer = undefined;
      run?.();
    };
    return { streams, states, heard, end, fire, polls: () => polls, armed: () => timer !== undefined };
  }

  it('is_live_after_the_first_event_and_reads_its_data', () => {
    const h = harness();
    h.streams[0]!.hear('hello', '{"version":"1"}');
    h.streams[0]!.hear('run.progress', 'not json');
    expect(h.states).toEqual(['connecting', 'live']);
    expect(h.heard).toEqual([{ topic: 'hello', data: { version: '1' } }, { topic: 'run.progress', data: null }]);
  });

  it('knows_which_server_an_event_is_about', () => {
    const about = (data: unknown) => serverOf({ topic: 'run.finished', data });
    expect([about({ server_id: 'a' }), about({ server: { id: 'b' } }), about(null), about({ server: 'x' })]).toEqual(['a', 'b', '', '']);
  });

  it('polls_while_the_stream_is_away_and_stops_when_it_is_back', () => {
    const h = harness();
    h.streams[0]!.hear('hello', '{}');
    h.streams[0]!.hear('error');
    expect(h.states.at(-1)).toBe('reconnecting');
    h.fire();
    h.fire();
    expect(h.polls()).toBe(2);
    expect(h.streams).toHaveLength(1);
    h.streams[0]!.hear('open');
    expect(h.states.at(-1)).toBe('live');
    expect(h.armed()).toBe(false);
  });

  it('opens_a_new_stream_when_the_browser_gave_up', () => {
    const h = harness();
    h.streams[0]!.readyState = 2;
    h.streams[0]!.hear('error');
    h.fire();
    expect(h.streams).toHaveLength(2);
    h.streams[0]!.hear('hello', '{}');
    expect(h.states.at(-1)).toBe('reconnecting');
    h.end();
    h.fire();
    expect(h.polls()).toBe(1);
  });
});

describe('schedule', () => {
  it('names_each_field_that_is_not_right_yet', () => {
    const draft = newDraft();
    expect(Object.keys(checkDraft(draft))).toEqual(['name', 'destinations']);
    const good = { ...draft, name: 'nightly', destinations: ['local'] };
    expect(checkDraft(good)).toEqual({});
    expect(checkDraft(good, ['nightly']).name).toContain('already');
    expect(checkDraft({ ...good, name: 'Nightly' }).name).toContain('a-z');
    expect(checkDraft({ ...good, everyAccount: false }).accounts).toBeDefined();
    expect(checkDraft({ ...good, keep: { ...good.keep, last: '-1' } }).keep).toBeDefined();
    expect(checkDraft({ ...good, when: { ...good.when, clock: '2 am' } }).when).toContain('02:00');
    expect(checkDraft({ ...good, when: { ...good.when, zone: 'Mars/Olympus' } }).when).toContain('Mars/Olympus');
  });

  it('writes_the_documented_toml', () => {
    const draft = { ...newDraft('Europe/Berlin'), name: 'nightly', destinations: ['offsite', 'local'], compression: 'auto', exclude: '*/cache/*\n\n"q"' };
    expect(previewToml(draft)).toBe(
      [
        '[schedule.nightly]',
        'scope = "full"',
        'accounts = "all"',
        'when = "daily 02:00 Europe/Berlin"',
        'destinations = ["offsite", "local"]',
        'keep = { last = 7, daily = 14, monthly = 6 }',
        'compression = "auto"',
        'exclude = ["*/cache/*", "\\"q\\""]',
        '',
      ].join('\n'),
    );
    expect(previewToml({ ...draft, name: 'a.b' })).toContain('[schedule."a.b"]');
  });

  it('keeps_every_value_of_a_schedule_that_is_opened_and_saved', () => {
    const schedule: Schedule = {
      name: 'a', enabled: false, origin: 'controller', scope: 'db', accounts: ['acme'], when: '*/5 * * * *', destinations: ['x'],
      keep: { last: 3, hourly: 2, within: '30d', max: 60 }, compression: 7, exclude: ['*.tmp'], toml: '',
    };
    const { origin: _, toml: __, ...input } = schedule;
    expect(inputOf(draftOf(schedule))).toEqual(input);
    expect(inputOf(draftOf({ ...schedule, compression: null })).compression).toBeNull();
  });

  it('colours_toml_without_losing_a_character', () => {
    const text = '[schedule.a]\nscope = "full"\nkeep = { last = 7, within = "30d" } # "x\nodd = "unclosed\n';
    expect(tomlTokens(text).map((line) => line.map((t) => t.text).join('')).join('\n') + '\n').toBe(text);
    expect(tomlTokens(text)[1]?.[0]).toEqual({ kind: 'key', text: 'scope' });
  });
});
