// The `when` of a schedule: built from choices, read back into choices, and its next times. Rules: docs of the settings.

export type Frequency = 'hourly' | 'daily' | 'weekly' | 'monthly' | 'custom';

export interface When {
  frequency: Frequency;
  /** Minute of the hour, 0–59; used by hourly. */
  minute: number;
  /** Time of day as it was typed, "02:00" when it is right; used by daily, weekly and monthly. */
  clock: string;
  /** mon … sun, as the settings write it; used by weekly. */
  weekday: Weekday;
  /** Day of the month, 1–28; used by monthly. */
  monthday: number;
  /** IANA zone; '' means the server's own zone. */
  zone: string;
  /** The text as it is, for custom. */
  custom: string;
}

export const WEEKDAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const;
export type Weekday = (typeof WEEKDAYS)[number];

const DAY_NAMES: Record<Weekday, string> = {
  mon: 'Monday',
  tue: 'Tuesday',
  wed: 'Wednesday',
  thu: 'Thursday',
  fri: 'Friday',
  sat: 'Saturday',
  sun: 'Sunday',
};

export function weekdayName(weekday: Weekday): string {
  return DAY_NAMES[weekday];
}

export function defaultWhen(zone = ''): When {
  return { frequency: 'daily', minute: 0, clock: '02:00', weekday: 'sun', monthday: 1, zone, custom: '' };
}

const two = (n: number) => String(n).padStart(2, '0');

/** Reads "2:05" or "02:05"; nothing when it is not a time of day. */
export function readClock(text: string): { hour: number; minute: number } | undefined {
  const hit = /^\s*(\d{1,2}):(\d{2})\s*$/.exec(text);
  const hour = Number(hit?.[1]);
  const minute = Number(hit?.[2]);
  return hit && hour < 24 && minute < 60 ? { hour, minute } : undefined;
}

function time(when: When): string {
  const clock = readClock(when.clock);
  return clock ? `${two(clock.hour)}:${two(clock.minute)}` : when.clock.trim();
}

/** Writes the choices as the text that goes into the TOML. */
export function buildWhen(when: When): string {
  if (when.frequency === 'custom') return when.custom.trim();
  const zone = when.zone === '' ? '' : ` ${when.zone}`;
  switch (when.frequency) {
    case 'hourly':
      return `hourly :${two(when.minute)}${zone}`;
    case 'daily':
      return `daily ${time(when)}${zone}`;
    case 'weekly':
      return `weekly ${when.weekday} ${time(when)}${zone}`;
    case 'monthly':
      return `monthly ${when.monthday} ${time(when)}${zone}`;
  }
}

const ZONE = '(?:\\s+([A-Z][A-Za-z0-9_+/-]*))?';
const CLOCK = '(\\d{1,2}:\\d{2})';
const FORMS = {
  hourly: new RegExp(`^hourly(?:\\s+:(\\d{2}))?${ZONE}$`),
  daily: new RegExp(`^daily(?:\\s+${CLOCK})?${ZONE}$`),
  weekly: new RegExp(`^weekly(?:\\s+(mon|tue|wed|thu|fri|sat|sun)\\s+${CLOCK})?${ZONE}$`),
  monthly: new RegExp(`^monthly(?:\\s+(\\d{1,2})\\s+${CLOCK})?${ZONE}$`),
};

/** Reads a text into choices; what the choices cannot say stays as it is under custom. */
export function parseWhen(text: string): When {
  const trimmed = text.trim();
  const custom: When = { ...defaultWhen(), frequency: 'custom', custom: trimmed };
  // Without a clock the settings mean midnight: on Monday, or on the first of the month.
  const number = (part: string | undefined, fallback = 0) => (part === undefined ? fallback : Number(part));
  const midnight = (zone: string | undefined): When => ({ ...defaultWhen(zone ?? ''), clock: '00:00', weekday: 'mon' });
  const checked = (when: When): When => {
    const fits = when.minute < 60 && readClock(when.clock) !== undefined && when.monthday >= 1 && when.monthday <= 28;
    return fits ? when : custom;
  };
  let hit = FORMS.hourly.exec(trimmed);
  if (hit) return checked({ ...midnight(hit[2]), frequency: 'hourly', minute: number(hit[1]) });
  hit = FORMS.daily.exec(trimmed);
  if (hit) return checked({ ...midnight(hit[2]), frequency: 'daily', clock: hit[1] ?? '00:00' });
  hit = FORMS.weekly.exec(trimmed);
  if (hit) {
    const weekday = (hit[1] ?? 'mon') as Weekday;
    return checked({ ...midnight(hit[3]), frequency: 'weekly', weekday, clock: hit[2] ?? '00:00' });
  }
  hit = FORMS.monthly.exec(trimmed);
  if (hit) {
    const monthday = number(hit[1], 1);
    return checked({ ...midnight(hit[3]), frequency: 'monthly', monthday, clock: hit[2] ?? '00:00' });
  }
  return custom;
}

/** Takes the zone off the end of a `when`, so that a narrow column can show it in small. */
export function zoneOff(text: string): { text: string; zone: string } {
  const hit = /^(.*\S)\s+(UTC|[A-Z][A-Za-z_+-]*(?:\/[A-Za-z_+-]+)+)$/.exec(text.trim());
  return hit ? { text: hit[1] ?? '', zone: hit[2] ?? '' } : { text: text.trim(), zone: '' };
}

function ordinal(n: number): string {
  const tail = n % 10 === 1 && n !== 11 ? 'st' : n % 10 === 2 && n !== 12 ? 'nd' : n % 10 === 3 && n !== 13 ? 'rd' : 'th';
  return `${n}${tail}`;
}

/** "Every day at 02:00, Europe/Berlin". */
export function describeWhen(when: When): string {
  const zone = when.zone === '' ? '' : `, ${when.zone}`;
  switch (when.frequency) {
    case 'hourly':
      return `Every hour at ${two(when.minute)} minutes past${zone}`;
    case 'daily':
      return `Every day at ${time(when)}${zone}`;
    case 'weekly':
      return `Every ${weekdayName(when.weekday)} at ${time(when)}${zone}`;
    case 'monthly':
      return `On the ${ordinal(when.monthday)} of every month at ${time(when)}${zone}`;
    case 'custom':
      return when.custom.trim() === '' ? 'No time yet' : when.custom.trim();
  }
}

/** True when the browser knows the zone. */
export function knownZone(zone: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: zone });
    return true;
  } catch {
    return false;
  }
}

interface Wall {
  year: number;
  month: number;
  day: number;
  hour: number;
  minute: number;
}

function wallIn(zone: string, at: number): Wall {
  const parts = new Intl.DateTimeFormat('en-GB', {
    timeZone: zone,
    hourCycle: 'h23',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
  }).formatToParts(at);
  const get = (type: string) => Number(parts.find((p) => p.type === type)?.value ?? 0);
  return { year: get('year'), month: get('month'), day: get('day'), hour: get('hour'), minute: get('minute') };
}

const asUtc = (w: Wall) => Date.UTC(w.year, w.month - 1, w.day, w.hour, w.minute);

/** The instant at which a wall clock in `zone` shows `wall`; in a gap, the first instant after it. */
export function instantOf(wall: Wall, zone: string): number {
  const wanted = asUtc(wall);
  let at = wanted;
  for (let round = 0; round < 3; round += 1) {
    const off = asUtc(wallIn(zone, at)) - wanted;
    if (off === 0) return at;
    at -= off;
  }
  return at;
}

const STEPS_MAX = 400;

/** The next `many` times after `now`; none for custom, which only the server can read. */
export function nextTimes(when: When, now: Date, many: number, fallbackZone = 'UTC'): Date[] {
  const zone = when.zone === '' ? fallbackZone : when.zone;
  if (when.frequency === 'custom' || !knownZone(zone) || !readClock(when.clock)) return [];
  const start = wallIn(zone, now.getTime());
  const found: Date[] = [];
  for (let step = 0; step < STEPS_MAX && found.length < many; step += 1) {
    const at = candidate(when, start, step, zone);
    if (at !== undefined && at > now.getTime()) found.push(new Date(at));
  }
  return found;
}

function candidate(when: When, start: Wall, step: number, zone: string): number | undefined {
  if (when.frequency === 'hourly') {
    const base = new Date(instantOf({ ...start, minute: 0 }, zone)).getTime();
    return base + step * 3600_000 + when.minute * 60_000;
  }
  const clock = readClock(when.clock) ?? { hour: 0, minute: 0 };
  if (when.frequency === 'monthly') {
    const month = start.month - 1 + step;
    const first = new Date(Date.UTC(start.year, month, 1));
    const wall = { year: first.getUTCFullYear(), month: first.getUTCMonth() + 1, day: when.monthday };
    return instantOf({ ...wall, ...clock }, zone);
  }
  const day = new Date(Date.UTC(start.year, start.month - 1, start.day + step));
  if (when.frequency === 'weekly' && WEEKDAYS[(day.getUTCDay() + 6) % 7] !== when.weekday) return undefined;
  const wall = { year: day.getUTCFullYear(), month: day.getUTCMonth() + 1, day: day.getUTCDate() };
  return instantOf({ ...wall, ...clock }, zone);
}
