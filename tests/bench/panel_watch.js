// What the benchmark of the panel wants to know of the page: how long the browser was busy at a stretch, and how far
// its frames were apart. Run before the page's own scripts.
(() => {
  const seen = { tasks: [], frames: [], last: null };
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) seen.tasks.push(entry.duration);
  }).observe({ type: "longtask", buffered: true });
  const frame = (now) => {
    if (seen.last !== null) seen.frames.push(now - seen.last);
    seen.last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  // Takes what was seen since it was asked last.
  window.paddlerBench = () => {
    const { tasks, frames } = seen;
    seen.tasks = [];
    seen.frames = [];
    return { tasks, frames };
  };
  // Scrolls an element, or the page, by so many pixels each frame, up and down, for so long.
  window.paddlerScroll = (selector, step, seconds) =>
    new Promise((resolve) => {
      const element = (selector && document.querySelector(selector)) || document.scrollingElement;
      const end = performance.now() + seconds * 1000;
      const before = performance.now();
      let way = step;
      let moved = 0;
      const scroll = (now) => {
        if (now >= end) {
          resolve({ moved, seconds: (now - before) / 1000 });
          return;
        }
        const top = element.scrollTop;
        element.scrollTop += way;
        if (element.scrollTop === top) way = -way;
        moved += Math.abs(element.scrollTop - top);
        requestAnimationFrame(scroll);
      };
      requestAnimationFrame(scroll);
    });
})();
