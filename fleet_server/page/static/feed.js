// One EventSource, told to whoever listens: runs in the shared worker, or in the page where there is none.
export function follow(url, tell) {
  let source, timer, seq = 0;
  const say = (state, force = false) => tell({state, seq, force});
  const news = force => event => { seq = Number(event.lastEventId) || 0; say('live', force); };
  function connect() {
    source = new EventSource(url);
    source.onopen = () => say('live');
    source.addEventListener('change', news(false));
    source.addEventListener('reload', news(true));
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return say('reconnecting');
      // Refused (too many viewers, or signed out): the page asks by itself, and we try again later, not all at once.
      say('polling');
      timer = setTimeout(connect, 10000 + Math.random() * 2000);
    };
  }
  connect();
  return () => { source.close(); clearTimeout(timer); };
}
