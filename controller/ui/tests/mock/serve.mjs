// Serves the double until Ctrl-C: `npm run mock -- [fresh|fleet] [port]`, after `npm run build`.
import { startMock } from './server.mjs';

const [state = 'fleet', port = '4180'] = process.argv.slice(2);
const mock = await startMock({ dist: new URL('../../dist/', import.meta.url).pathname, state, port: Number(port) });
console.log(state === 'fresh' ? `${mock.url}/setup#${mock.token}` : `${mock.url}  (anna / correct horse battery)`);
