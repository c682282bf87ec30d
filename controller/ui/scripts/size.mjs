// Prints what the first page weighs (gzip) and fails when it is beyond the budget; run after the build.
import { readFileSync, rmSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const BUDGET_BYTES = 60 * 1024;
const dist = new URL('../dist/', import.meta.url);
const manifest = JSON.parse(readFileSync(new URL('manifest.json', dist), 'utf8'));
const weigh = (file) => gzipSync(readFileSync(new URL(file, dist)), { level: 9 }).length;

/** Every file that a chunk needs before it can run. */
function files(key, seen = new Set()) {
  const chunk = manifest[key];
  if (chunk === undefined || seen.has(chunk.file)) return seen;
  seen.add(chunk.file);
  for (const sheet of chunk.css ?? []) seen.add(sheet);
  for (const next of chunk.imports ?? []) files(next, seen);
  return seen;
}

const shell = files('index.html');
for (const file of ['index.html', 'theme.js']) shell.add(file);
const sum = (set) => [...set].reduce((total, file) => total + weigh(file), 0);
const kib = (bytes) => `${(bytes / 1024).toFixed(1)} KiB`;
const pages = Object.keys(manifest).filter((key) => manifest[key].isDynamicEntry);
const weights = pages.map((key) => ({ key, more: sum([...files(key)].filter((f) => !shell.has(f))) }));
weights.sort((a, b) => b.more - a.more);

console.log(`shell      ${kib(sum(shell))} gzip`);
for (const { key, more } of weights) console.log(`  + ${key.replace(/^src\/pages\/|\.svelte$/g, '').padEnd(14)} ${kib(more)}`);
const first = sum(shell) + (weights.find(({ key }) => key.endsWith('/Servers.svelte'))?.more ?? 0);
const worst = sum(shell) + (weights[0]?.more ?? 0);
const all = sum(new Set(pages.flatMap((key) => [...files(key)]).concat([...shell])));
console.log(`first page ${kib(first)} gzip, heaviest page ${kib(worst)}, whole dashboard ${kib(all)}; budget ${kib(BUDGET_BYTES)} for any page`);
rmSync(new URL('manifest.json', dist));
if (worst > BUDGET_BYTES) {
  console.error('A page is beyond the budget.');
  process.exit(1);
}
