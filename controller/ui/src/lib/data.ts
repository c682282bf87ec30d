// What several pages fetch: whole short lists, gathered page by page with a bound.

import { path, type Answer } from '../core/api';
import type { Page, Schedule, Server } from '../core/types';
import { api } from './app.svelte';

const PAGES_MAX = 20;
const PARALLEL_MAX = 6;

async function gather<T>(page: (cursor: string) => Promise<Answer<Page<T>>>): Promise<T[]> {
  const items: T[] = [];
  let cursor = '';
  for (let round = 0; round < PAGES_MAX; round += 1) {
    const { body } = await page(cursor);
    items.push(...body.items);
    if (!body.next_cursor) break;
    cursor = body.next_cursor;
  }
  return items;
}

export function servers(): Promise<Server[]> {
  return gather((cursor) => api.get<Page<Server>>(path(['servers'], { limit: 100, cursor })));
}

export async function server(id: string): Promise<{ server: Server; etag: string }> {
  const { body, etag } = await api.get<Server>(path(['servers', id]));
  return { server: body, etag };
}

export function schedules(server: string): Promise<Schedule[]> {
  return gather((cursor) => api.get<Page<Schedule>>(path(['servers', server, 'schedules'], { cursor })));
}

export interface Row {
  server: Server;
  schedule: Schedule;
}

/** The schedules of many servers, a few servers at a time. */
export async function schedulesOf(list: Server[]): Promise<Row[]> {
  const rows: Row[][] = [];
  const queue = list.map((server, at) => ({ server, at }));
  const worker = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const { server, at } = next;
      rows[at] = (await schedules(server.id)).map((schedule) => ({ server, schedule }));
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_MAX }, worker));
  return rows.flat();
}
