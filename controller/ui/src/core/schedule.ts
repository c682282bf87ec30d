// A schedule while it is being written: checks, the TOML that the server will get, and the request body.

import type { Keep, Schedule, ScheduleInput } from './types';
import { buildWhen, defaultWhen, knownZone, parseWhen, readClock, type When } from './when';

export interface Draft {
  name: string;
  enabled: boolean;
  scope: ScheduleInput['scope'];
  everyAccount: boolean;
  accounts: string[];
  when: When;
  destinations: string[];
  keep: Record<KeepField, string>;
  within: string;
  /** '' for the usual one, 'auto', or '0' to '9'. */
  compression: string;
  exclude: string;
}

export const KEEP_FIELDS = ['last', 'hourly', 'daily', 'weekly', 'monthly', 'yearly', 'max'] as const;
export type KeepField = (typeof KEEP_FIELDS)[number];

export function newDraft(zone = ''): Draft {
  return {
    name: '',
    enabled: true,
    scope: 'full',
    everyAccount: true,
    accounts: [],
    when: defaultWhen(zone),
    destinations: [],
    keep: { last: '7', hourly: '', daily: '14', weekly: '', monthly: '6', yearly: '', max: '' },
    within: '',
    compression: '',
    exclude: '',
  };
}

export function draftOf(schedule: Schedule): Draft {
  const text = (n: number | null | undefined) => (n ? String(n) : '');
  const keep = Object.fromEntries(KEEP_FIELDS.map((k) => [k, text(schedule.keep[k])])) as Draft['keep'];
  return {
    name: schedule.name,
    enabled: schedule.enabled,
    scope: schedule.scope,
    everyAccount: schedule.accounts === 'all',
    accounts: schedule.accounts === 'all' ? [] : [...schedule.accounts],
    when: parseWhen(schedule.when),
    destinations: [...schedule.destinations],
    keep,
    within: schedule.keep.within ?? '',
    compression: schedule.compression == null ? '' : String(schedule.compression),
    exclude: schedule.exclude.join('\n'),
  };
}

function keepOf(draft: Draft): Keep {
  const keep: Keep = {};
  for (const field of KEEP_FIELDS) if (draft.keep[field].trim() !== '') keep[field] = Number(draft.keep[field]);
  if (draft.within.trim() !== '') keep.within = draft.within.trim();
  return keep;
}

export function inputOf(draft: Draft): ScheduleInput {
  return {
    name: draft.name.trim(),
    enabled: draft.enabled,
    scope: draft.scope,
    accounts: draft.everyAccount ? 'all' : [...draft.accounts],
    when: buildWhen(draft.when),
    destinations: [...draft.destinations],
    keep: keepOf(draft),
    compression: draft.compression === '' ? null : draft.compression === 'auto' ? 'auto' : Number(draft.compression),
    exclude: draft.exclude.split('\n').map((line) => line.trim()).filter((line) => line !== ''),
  };
}

export type DraftErrors = Partial<Record<'name' | 'accounts' | 'when' | 'destinations' | 'keep', string>>;

const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/;

/** What still has to be put right, by field; empty when it can be saved. */
export function checkDraft(draft: Draft, taken: string[] = []): DraftErrors {
  const errors: DraftErrors = {};
  const name = draft.name.trim();
  if (name === '') errors.name = 'Give the schedule a name.';
  else if (!NAME.test(name)) errors.name = 'Use a-z, 0-9, dot, dash and underscore, starting with a letter or digit.';
  else if (taken.includes(name)) errors.name = `This server already has a schedule named ${name}.`;
  if (!draft.everyAccount && draft.accounts.length === 0) errors.accounts = 'Choose at least one account.';
  if (buildWhen(draft.when) === '') errors.when = 'Say when it should run.';
  else if (!['hourly', 'custom'].includes(draft.when.frequency) && !readClock(draft.when.clock)) errors.when = 'Write the time as 02:00, from 00:00 to 23:59.';
  else if (draft.when.zone !== '' && !knownZone(draft.when.zone)) errors.when = `${draft.when.zone} is not a time zone.`;
  if (draft.destinations.length === 0) errors.destinations = 'Choose at least one destination.';
  for (const field of KEEP_FIELDS) {
    const text = draft.keep[field].trim();
    if (text !== '' && !/^[1-9]\d{0,4}$/.test(text)) errors.keep = `Use whole numbers from 1 to 99999, or leave ${field} empty.`;
  }
  if (Object.keys(keepOf(draft)).length === 0) errors.keep ??= 'Say what to keep: at least one number.';
  return errors;
}

/** A TOML basic string. */
export function tomlString(text: string): string {
  const escaped = text.replace(/[\\"\u0000-\u001f\u007f]/g, (c) => {
    if (c === '\\' || c === '"') return `\\${c}`;
    if (c === '\n') return '\\n';
    if (c === '\t') return '\\t';
    return `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
  return `"${escaped}"`;
}

const tomlList = (items: string[]) => `[${items.map(tomlString).join(', ')}]`;
const tomlKey = (name: string) => (/^[A-Za-z0-9_-]+$/.test(name) ? name : tomlString(name));

/** The TOML that this draft would become. The controller's own text is the truth once it is saved. */
export function previewToml(draft: Draft): string {
  const input = inputOf(draft);
  const keep = Object.entries(input.keep).map(([key, value]) => `${key} = ${typeof value === 'string' ? tomlString(value) : value}`);
  const lines = [`[schedule.${tomlKey(input.name === '' ? 'name' : input.name)}]`];
  if (!input.enabled) lines.push('enabled = false');
  lines.push(
    `scope = ${tomlString(input.scope)}`,
    `accounts = ${input.accounts === 'all' ? '"all"' : tomlList(input.accounts)}`,
    `when = ${tomlString(input.when)}`,
    `destinations = ${tomlList(input.destinations)}`,
    `keep = { ${keep.join(', ')} }`,
  );
  if (input.compression !== null) lines.push(`compression = ${input.compression === 'auto' ? '"auto"' : input.compression}`);
  if (input.exclude.length > 0) lines.push(`exclude = ${tomlList(input.exclude)}`);
  return `${lines.join('\n')}\n`;
}

export interface TomlToken {
  kind: 'table' | 'key' | 'string' | 'number' | 'plain';
  text: string;
}

/** Splits TOML into coloured parts, line by line; every character comes out again. */
export function tomlTokens(text: string): TomlToken[][] {
  return text.replace(/\n$/, '').split('\n').map((line) => {
    if (/^\s*\[/.test(line)) return [{ kind: 'table', text: line }];
    const tokens: TomlToken[] = [];
    const pattern = /("(?:\\.|[^"\\])*")|([A-Za-z0-9_-]+)(?=\s*=)|(\b\d+\b|\btrue\b|\bfalse\b)|([^"A-Za-z0-9_-]+|.)/g;
    for (const hit of line.matchAll(pattern)) {
      const kind = hit[1] !== undefined ? 'string' : hit[2] !== undefined ? 'key' : hit[3] !== undefined ? 'number' : 'plain';
      tokens.push({ kind, text: hit[0] });
    }
    return tokens;
  });
}
