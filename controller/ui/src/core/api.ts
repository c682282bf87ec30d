// One way to call the controller: JSON in, JSON out, problems as one typed error. No view, no framework.

export interface FieldError {
  pointer: string;
  detail: string;
}

/** What went wrong with one call, in words for people. `status` 0 means that no answer came. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string,
    readonly code: string = '',
    readonly fields: FieldError[] = [],
  ) {
    super(sentence(detail === '' ? title : detail));
    this.name = 'Problem';
  }

  /** True when the controller could not be reached or answered for a while. */
  get unreachable(): boolean {
    return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504;
  }

  /** The message for one field, by the last part of its JSON pointer; '' when that field is fine. */
  field(name: string): string {
    const hit = this.fields.find((f) => f.pointer === `/${name}` || f.pointer.startsWith(`/${name}/`));
    return hit ? sentence(hit.detail) : '';
  }
}

export interface Answer<T> {
  body: T;
  etag: string;
}

export interface CallOptions {
  body?: unknown;
  etag?: string;
  signal?: AbortSignal;
}

/** "there is no such run" → "There is no such run." */
export function sentence(text: string): string {
  const trimmed = text.trim();
  const ended = /[.!?…:]$/.test(trimmed) || trimmed === '' ? trimmed : `${trimmed}.`;
  return ended.charAt(0).toUpperCase() + ended.slice(1);
}

type Fetch = (input: string, init: RequestInit) => Promise<Response>;

/** Turns an answer that is not a success into a problem, whatever its body is. */
export async function toProblem(response: Response): Promise<Problem> {
  const kind = response.headers.get('content-type') ?? '';
  if (kind.includes('json')) {
    const body = (await response.json().catch(() => null)) as Record<string, unknown> | null;
    if (body !== null && typeof body === 'object') {
      const text = (key: string) => (typeof body[key] === 'string' ? (body[key] as string) : '');
      const fields = Array.isArray(body.errors) ? (body.errors as FieldError[]) : [];
      return new Problem(response.status, text('title') || 'The request failed', text('detail'), text('code'), fields);
    }
  }
  return new Problem(response.status, 'The request failed', `The controller answered with status ${response.status}.`);
}

/** Makes a client. `onSignedOut` is called when a call is refused because no session is open. */
export function createApi(fetcher: Fetch, onSignedOut: () => void = () => {}, base = '/api/v1') {
  async function call<T>(method: string, path: string, options: CallOptions = {}): Promise<Answer<T>> {
    const headers: Record<string, string> = { accept: 'application/json' };
    if (method !== 'GET') headers['x-backstay'] = '1';
    if (options.body !== undefined) headers['content-type'] = 'application/json';
    if (options.etag) headers['if-match'] = options.etag;
    let response: Response;
    try {
      response = await fetcher(base + path, {
        method,
        headers,
        body: options.body === undefined ? undefined : JSON.stringify(options.body),
        credentials: 'same-origin',
        cache: 'no-store',
        signal: options.signal,
      });
    } catch (cause) {
      if (cause instanceof DOMException && cause.name === 'AbortError') throw cause;
      throw new Problem(0, 'The controller does not answer', 'Check that it runs and that this browser can reach it.');
    }
    if (!response.ok) {
      const problem = await toProblem(response);
      if (response.status === 401 && path !== '/session') onSignedOut();
      throw problem;
    }
    const text = response.status === 204 ? '' : await response.text();
    const body = (text === '' ? undefined : JSON.parse(text)) as T;
    return { body, etag: response.headers.get('etag') ?? '' };
  }

  return {
    get: <T>(path: string, options?: CallOptions) => call<T>('GET', path, options),
    post: <T>(path: string, body?: unknown) => call<T>('POST', path, { body }),
    put: <T>(path: string, body: unknown, etag: string) => call<T>('PUT', path, { body, etag }),
    del: <T>(path: string, etag?: string) => call<T>('DELETE', path, { etag }),
  };
}

export type Api = ReturnType<typeof createApi>;

/** Builds a path from parts, each escaped, and a query without its empty values. */
export function path(parts: string[], query: Record<string, string | number | undefined | null> = {}): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== '') search.set(key, String(value));
  }
  const tail = search.toString();
  return `/${parts.map(encodeURIComponent).join('/')}${tail === '' ? '' : `?${tail}`}`;
}
