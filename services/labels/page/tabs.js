// One tab labels at a time: both would get the same lease and answer it twice.

const NAME = "tdmr1-label-tab";

/**
 * Run `work` in the tab that holds the browser's lock; call `refuse(take)` where another has it, or
 * has taken it over (that tab's page is loaded anew). `take` moves the work here.
 */
export function holdTab(work, refuse) {
  if (!navigator.locks) return work();
  const forever = () => new Promise(() => null);
  const hold = (lock) => {
    if (!lock) return refuse(take);
    work();
    return forever();
  };
  const take = () =>
    navigator.locks.request(NAME, { steal: true }, () => {
      work();
      return forever();
    }).catch(moved);
  const moved = () => location.reload();
  return navigator.locks.request(NAME, { ifAvailable: true }, hold).catch(moved);
}
