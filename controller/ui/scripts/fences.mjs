// Refuses what the Content-Security-Policy would refuse at run time, and what people can do in one page but not in all:
// raw HTML, inline style attributes, inline handlers, evaluated code. Also keeps core/ free of the view framework.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

const root = new URL('../', import.meta.url).pathname;
const RULES = [
  { files: /\.svelte$/, pattern: /\{@html/, why: '{@html} bypasses the compiler: use elements' },
  { files: /\.svelte$/, pattern: /\sstyle="/, why: 'an inline style is refused by the policy: use a class' },
  { files: /\.html$/, pattern: /\son\w+=|\sstyle=|<script(?![^>]*\ssrc=)/, why: 'inline handlers, styles and scripts are refused by the policy' },
  { files: /\.(ts|svelte)$/, pattern: /\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write)\b|\beval\(|new Function\(/, why: 'Trusted Types refuse it' },
  { files: /src\/core\/.*\.ts$/, pattern: /from '(svelte|\.\.\/)/, why: 'core/ knows neither the view framework nor the views' },
];

function* walk(folder) {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) yield* walk(path);
    else yield path;
  }
}

const wrong = [];
for (const file of [...walk(join(root, 'src')), join(root, 'index.html')]) {
  const text = readFileSync(file, 'utf8');
  for (const rule of RULES) {
    if (!rule.files.test(file)) continue;
    text.split('\n').forEach((line, i) => {
      if (rule.pattern.test(line)) wrong.push(`${file.slice(root.length)}:${i + 1}: ${rule.why}`);
    });
  }
}
const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
for (const [name, entry] of Object.entries(lock.packages)) {
  if (entry.hasInstallScript) wrong.push(`package-lock.json: ${name} has an install script`);
  if (entry.resolved) wrong.push(`package-lock.json: ${name} names a registry host`);
}
if (wrong.length > 0) {
  console.error(wrong.join('\n'));
  process.exit(1);
}
console.log('fences: nothing inline, nothing evaluated, core/ is plain TypeScript, no install scripts');
