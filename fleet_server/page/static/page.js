// Keeps a page true: ages count, <main> is fetched again when the fleet changes, actions ask in a dialog. The page is whole without this.
import {follow} from './feed.js';

const $ = selector => document.querySelector(selector);
const PAUSE_MS = 1000, POLL_MS = 10000;
let skew = Date.now() - Number($('main').dataset.ms); // the viewer's clock may be wrong, the server's counts
let last = 0, timer = 0, busy = false, wanted = false, state = 'connecting', poll = 0;

document.documentElement.classList.add('js');

function ages() {
  for (const time of document.querySelectorAll('time[data-age]')) {
    const s = (Date.now() - skew - Date.parse(time.dateTime)) / 1000;
    if (s < 3600) time.textContent = s < 1 ? 'now' : s < 60 ? `${Math.floor(s)}\u00a0s ago` : `${Math.floor(s / 60)}\u00a0min ago`;
  }
}

function show() {
  const at = $('main').dataset.at;
  const text = {live: `Live ${at} UTC`, polling: `Updates every 10 s, last ${at} UTC`, 'signed-out': `Signed out, last ${at} UTC`}[state]
    || `Reconnecting, last news ${at} UTC`;
  const box = $('#live');
  if (box.dataset.state !== state) box.dataset.state = state;
  // A screen reader hears the change of state, not every tick of the clock.
  box.setAttribute('aria-live', state === 'live' ? 'off' : 'polite');
  $('#live-text').textContent = text;
}

// What a person has opened, typed or focused survives the exchange of <main>.
function remember(main) {
  const open = new Set([...main.querySelectorAll('details[open]')].map(d => d.id));
  const typed = [...main.querySelectorAll('input[id]')].filter(i => i.value !== i.defaultValue).map(i => [i.id, i.value]);
  const at = main.contains(document.activeElement) ? document.activeElement : null;
  const same = at && (at.id ? `#${CSS.escape(at.id)}` : at.hasAttribute('href') ? `${at.localName}[href="${CSS.escape(at.getAttribute('href'))}"]`
    : at.localName === 'summary' ? `#${CSS.escape(at.parentElement.id)} > summary` : null);
  const nth = same ? [...main.querySelectorAll(same)].indexOf(at) : 0;
  const caret = at && at.selectionStart;
  const left = [...main.querySelectorAll('.scroll')].map(box => box.scrollLeft);
  return next => {
    for (const d of next.querySelectorAll('details')) d.open = open.has(d.id);
    for (const [id, value] of typed) { const i = next.querySelector(`#${CSS.escape(id)}`); if (i) i.value = value; }
    next.querySelectorAll('.scroll').forEach((box, i) => { box.scrollLeft = left[i] || 0; });
    const again = same && (next.querySelectorAll(same)[nth] || next.querySelector(same));
    if (again) { again.focus({preventScroll: true}); if (caret != null && again.setSelectionRange) again.setSelectionRange(caret, caret); }
    else if (at) next.focus({preventScroll: true});
  };
}

async function refresh() {
  timer = 0;
  // A page under a question stays as the person read it; it is fetched when the question is closed.
  if (busy || document.hidden || $('dialog[open]')) { wanted = true; return; }
  busy = true; wanted = false;
  try {
    const answer = await fetch(location.href, {headers: {'X-Fragment': 'main'}, cache: 'no-store', redirect: 'error'});
    if (answer.status === 401) { state = 'signed-out'; return; }
    if (!answer.ok) return;
    const next = new DOMParser().parseFromString(await answer.text(), 'text/html').querySelector('main');
    const main = $('main');
    if (!next || $('dialog[open]')) { wanted = true; return; }
    if (next.dataset.build !== main.dataset.build) { location.reload(); return; }
    const restore = remember(main);
    main.replaceWith(document.adoptNode(next));
    skew = Date.now() - Number(next.dataset.ms);
    restore(next);
    ages();
  } catch { /* the connection's own state says it */ } finally {
    last = Date.now(); busy = false; show();
    if (wanted && !document.hidden && !$('dialog[open]')) soon();
  }
}

function soon() {
  if (!timer) timer = setTimeout(refresh, Math.max(Math.random() * 250, last + PAUSE_MS - Date.now()));
}

function hear(message) {
  state = message.state;
  show();
  clearInterval(poll);
  if (state === 'polling') poll = setInterval(soon, POLL_MS);
  if (message.force || message.seq > Number($('main').dataset.seq)) soon();
}

// The server ends an older stream of the same name: else each page that a person leaves would hold a place for many seconds.
function nameIn(store) {
  try {
    if (!store().browser) store().browser = Array.from(crypto.getRandomValues(new Uint8Array(8)), b => b.toString(16).padStart(2, '0')).join('');
    return store().browser;
  } catch { return ''; }
}

function connect() {
  const alone = () => {
    const url = `/live?browser=${nameIn(() => sessionStorage)}`;
    let stop = follow(url, hear);
    document.addEventListener('visibilitychange', () => { stop(); stop = document.hidden ? () => {} : follow(url, hear); });
    addEventListener('pagehide', () => stop());
  };
  if (!window.SharedWorker) return alone();
  const name = `${nameIn(() => localStorage)}-${$('main').dataset.build}`;
  const worker = new SharedWorker(new URL('worker.js', import.meta.url), {type: 'module', name});
  worker.onerror = alone;
  worker.port.onmessage = event => hear(event.data);
  addEventListener('pagehide', () => worker.port.postMessage('bye'));
  addEventListener('pageshow', event => { if (event.persisted) location.reload(); });
}

document.addEventListener('click', event => {
  const opener = event.target.closest('[data-dialog]'), closer = event.target.closest('[data-close]');
  const dialog = opener && document.getElementById(opener.dataset.dialog);
  if (dialog) {
    event.preventDefault();
    dialog.showModal();
    dialog.querySelector('[data-close]').focus();
    dialog.addEventListener('close', () => { if (wanted) soon(); }, {once: true});
  } else if (closer && closer.closest('dialog')) {
    event.preventDefault();
    closer.closest('dialog').close();
  }
});
document.addEventListener('visibilitychange', () => { if (!document.hidden && wanted) soon(); });

setInterval(ages, 1000);
if ($('main').dataset.live === 'yes') connect();
else $('#live').hidden = true;
