// What the server is asked. Every failure becomes an Error with the server's own line.

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Error("the server does not answer; is `sparsefield serve` still running?");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Error(told.error ?? `the server answered ${answer.status}`);
}

const json = async (path, options) => (await ask(path, options)).json();
const query = (values) => new URLSearchParams(values).toString();

export const options = () => json("/api/options");
export const upload = (file, signal) =>
  json(`/api/uploads?${query({ name: file.name })}`, { method: "POST", body: file, signal });
export const sample = (name, signal) => json(`/api/samples/${name}`, { method: "POST", signal });
export const stations = (id, chosen, signal) =>
  json(`/api/uploads/${id}/stations?${query({ options: JSON.stringify(chosen) })}`, { signal });
export const picture = async (id, signal) =>
  createImageBitmap(await (await ask(`/api/uploads/${id}/picture.png`, { signal })).blob(), {
    premultiplyAlpha: "none",
  });
export const submit = (blob, name, chosen) =>
  json(`/api/jobs?${query({ name, options: JSON.stringify(chosen) })}`, {
    method: "POST",
    body: blob,
  });
export const cancel = (id) => json(`/api/jobs/${id}/cancel`, { method: "POST" });
export const array = async (id, name, signal) =>
  new Float32Array(
    await (await ask(`/api/jobs/${id}/arrays/${encodeURIComponent(name)}`, { signal })).arrayBuffer()
  );

// Call `see` with every state of a job until it has ended; return the last one.
export function follow(id, see, signal) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(`/api/jobs/${id}/events`);
    signal.addEventListener("abort", () => {
      source.close();
      reject(signal.reason);
    });
    let lost = 0;
    source.onmessage = (event) => {
      const state = JSON.parse(event.data);
      lost = 0;
      see(state);
      if (["done", "failed", "cancelled"].includes(state.state)) {
        source.close();
        resolve(state);
      }
    };
    source.onerror = () => {
      lost += 1;
      if (lost < 5 && source.readyState !== EventSource.CLOSED) return;
      source.close();
      reject(new Error("the connection to the server was lost"));
    };
  });
}
