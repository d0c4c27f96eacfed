// Seat in Streamlit: called again with the same parentElement whenever data or theme change.
export default function (component) {
  const { parentElement, data, setStateValue, setTriggerValue } = component;
  const root = parentElement.querySelector(".ll");
  if (!root || !data) return;
  const host = { data, send: setStateValue, trigger: setTriggerValue };
  if (root.__ll) root.__ll.update(host);
  else root.__ll = LL.mount("LATENTLAB_COMPONENT", root, host);
  const live = root.__ll;
  return () => {
    // React may run a cleanup and mount again on the same element (strict mode, theme switch).
    setTimeout(() => {
      if (!root.isConnected) {
        live.destroy();
        root.__ll = undefined;
      }
    }, 0);
  };
}
