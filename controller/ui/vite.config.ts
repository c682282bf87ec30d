/// <reference types="vitest/config" />
// Builds a plain single-page app for a strict Content-Security-Policy: every script and style is a file.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

const controller = process.env.BACKSTAY_CONTROLLER ?? 'https://127.0.0.1:8443';

export default defineConfig({
  plugins: [svelte()],
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    manifest: 'manifest.json',
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: { proxy: { '/api': { target: controller, secure: false, changeOrigin: true } } },
  test: { include: ['src/**/*.test.ts'], environment: 'node' },
});
