// Wide tables scroll; the keyboard reaches them too.
document$.subscribe(() =>
  requestAnimationFrame(() => {
    document.querySelectorAll(".md-typeset__scrollwrap").forEach((frame, at) => {
      frame.tabIndex = 0;
      frame.setAttribute("role", "region");
      frame.setAttribute("aria-label", `Table ${at + 1}`);
    });
  }),
);
