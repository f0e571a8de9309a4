// All tabs of a browser share one connection: browsers allow six per server, and the seventh tab would not even load.
import {follow} from './feed.js';

const ports = new Set();
let latest = {state: 'connecting', seq: 0, force: false};
follow(`/live?browser=${self.name}`, message => {
  latest = {...message, force: false};
  for (const port of ports) port.postMessage(message);
});
onconnect = event => {
  const port = event.ports[0];
  ports.add(port);
  port.onmessage = () => ports.delete(port);
  port.postMessage(latest);
};
