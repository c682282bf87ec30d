// Numbers and times as people read them. Pure: the present time is always an argument.

const UNITS = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** 1610612736 → "1.5 GiB"; never rounds up into the next unit. */
export function bytes(count: number): string {
  if (!Number.isFinite(count) || count < 0) return '–';
  if (count < 1024) return `${Math.floor(count)} B`;
  let value = count;
  let unit = -1;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${(Math.floor(value * 10) / 10).toFixed(1)} ${UNITS[unit]}`;
}

export function rate(bytesPerSecond: number): string {
  return `${bytes(bytesPerSecond)}/s`;
}

/** 12345 → "12,345" (as the browser's language writes it). */
export function count(value: number, locale?: string): string {
  return new Intl.NumberFormat(locale).format(value);
}

export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** 192 s → "3 min 12 s"; two parts at most. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const parts: [number, string][] = [
    [Math.floor(whole / 86400), 'd'],
    [Math.floor((whole % 86400) / 3600), 'h'],
    [Math.floor((whole % 3600) / 60), 'min'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([n]) => n > 0);
  return parts
    .slice(first, first + 2)
    .filter(([n]) => n > 0)
    .map(([n, unit]) => `${n} ${unit}`)
    .join(' ');
}

/** Seconds between two instants; 0 when either is missing or unreadable. */
export function secondsBetween(from: string | null | undefined, to: string | Date | null | undefined): number {
  if (!from || !to) return 0;
  const gap = (new Date(to).getTime() - new Date(from).getTime()) / 1000;
  return Number.isFinite(gap) ? gap : 0;
}

function coarse(seconds: number): string {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** "just now", "12 min ago", "in 3 h", "2 days ago". */
export function relative(instant: string | null | undefined, now: Date): string {
  if (!instant) return 'never';
  const gap = (new Date(instant).getTime() - now.getTime()) / 1000;
  if (!Number.isFinite(gap)) return '–';
  if (Math.abs(gap) < 5) return 'just now';
  return gap < 0 ? `${coarse(-gap)} ago` : `in ${coarse(gap)}`;
}

export interface Place {
  locale?: string;
  zone?: string;
}

/** "5 May 2026, 03:00:12" in the reader's own language and zone. */
export function exact(instant: string | null | undefined, place: Place = {}): string {
  const date = instant ? new Date(instant) : undefined;
  if (!date || Number.isNaN(date.getTime())) return '–';
  return new Intl.DateTimeFormat(place.locale, {
    dateStyle: 'medium',
    timeStyle: 'medium',
    timeZone: place.zone,
  }).format(date);
}

export function clock(instant: string | Date, place: Place = {}): string {
  return new Intl.DateTimeFormat(place.locale, {
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
    timeZone: place.zone,
  }).format(new Date(instant));
}

function dayKey(instant: string | Date, zone?: string): string {
  return new Intl.DateTimeFormat('en-CA', { timeZone: zone, dateStyle: 'short' }).format(new Date(instant));
}

/** "Today", "Yesterday", or "Tue 5 May"; the year only when it is another one. */
export function day(instant: string | Date, now: Date, place: Place = {}): string {
  const key = dayKey(instant, place.zone);
  if (key === dayKey(now, place.zone)) return 'Today';
  if (key === dayKey(new Date(now.getTime() - 86400_000), place.zone)) return 'Yesterday';
  if (key === dayKey(new Date(now.getTime() + 86400_000), place.zone)) return 'Tomorrow';
  const sameYear = key.slice(0, 4) === dayKey(now, place.zone).slice(0, 4);
  return new Intl.DateTimeFormat(place.locale, {
    weekday: 'short',
    day: 'numeric',
    month: 'short',
    year: sameYear ? undefined : 'numeric',
    timeZone: place.zone,
  }).format(new Date(instant));
}

/** "Today, 03:00". */
export function dayAndClock(instant: string | Date, now: Date, place: Place = {}): string {
  return `${day(instant, now, place)}, ${clock(instant, place)}`;
}

/** "a1b2c3d4…": enough of an id to tell it from its neighbours. */
export function shortId(id: string | null | undefined, length = 8): string {
  if (!id) return '–';
  return id.length <= length ? id : id.slice(0, length);
}
