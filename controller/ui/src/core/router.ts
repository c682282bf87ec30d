// Which page an address means, and the address of a page. Pure; the view keeps the history.

export type Route =
  | { page: 'setup' }
  | { page: 'login' }
  | { page: 'servers' }
  | { page: 'server'; id: string }
  | { page: 'schedules' }
  | { page: 'schedule-new' }
  | { page: 'schedule'; server: string; name: string }
  | { page: 'history'; run: string }
  | { page: 'restore' }
  | { page: 'operation'; id: string }
  | { page: 'unknown' };

export type PageName = Route['page'];

function unescaped(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function match(pathname: string): Route {
  const parts = pathname.split('/').filter((p) => p !== '').map(unescaped);
  const [first, second, third, fourth] = parts;
  if (parts.length === 0) return { page: 'servers' };
  if (first === 'setup' && parts.length === 1) return { page: 'setup' };
  if (first === 'login' && parts.length === 1) return { page: 'login' };
  if (first === 'servers' && parts.length === 1) return { page: 'servers' };
  if (first === 'servers' && second && parts.length === 2) return { page: 'server', id: second };
  if (first !== 'backups') return { page: 'unknown' };
  if (parts.length === 1) return { page: 'schedules' };
  if (second === 'schedules') {
    if (parts.length === 2) return { page: 'schedules' };
    if (third === 'new' && parts.length === 3) return { page: 'schedule-new' };
    if (third && fourth && parts.length === 4) return { page: 'schedule', server: third, name: fourth };
  }
  if (second === 'history' && parts.length <= 3) return { page: 'history', run: third ?? '' };
  if (second === 'restore' && parts.length === 2) return { page: 'restore' };
  if (second === 'restore' && third && parts.length === 3) return { page: 'operation', id: third };
  return { page: 'unknown' };
}

export type Query = Record<string, string>;

export function parseQuery(search: string): Query {
  return Object.fromEntries(new URLSearchParams(search));
}

/** Writes an address; empty values are left out, so that a link never carries noise. */
export function link(parts: string[], query: Record<string, string | undefined> = {}): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value) search.set(key, value);
  const tail = search.toString();
  return `/${parts.map(encodeURIComponent).join('/')}${tail === '' ? '' : `?${tail}`}`;
}

/** The set-up token of a first-run link: `/setup#TOKEN` or `/setup#token=TOKEN`. */
export function setupToken(hash: string): string {
  const text = hash.replace(/^#/, '');
  return unescaped(text.startsWith('token=') ? text.slice('token='.length) : text);
}
