// Compiler settings shared by Vite and svelte-check: runes everywhere, no legacy syntax.
import { vitePreprocess } from '@sveltejs/vite-plugin-svelte';

export default {
  preprocess: vitePreprocess({ script: false, style: false }),
  compilerOptions: { runes: true },
};
