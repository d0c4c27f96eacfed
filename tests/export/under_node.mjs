// Runs the browser engine under node: reads {program, wasm, requests} as JSON, prints images, states and times.
import { readFileSync } from "node:fs";
const [, , enginePath, wasmPath, jobPath] = process.argv;
const LatentEngine = new Function(readFileSync(enginePath, "utf8") + "; return LatentEngine;")();
const { program, requests, times = 0 } = JSON.parse(readFileSync(jobPath, "utf8"));
const text = (floats) => Buffer.from(floats.buffer, floats.byteOffset, floats.byteLength).toString("base64");
const engine = await LatentEngine.create(readFileSync(wasmPath), program);
const answers = requests.map(({ z, edits = [], stages = [] }) => {
  try {
    const image = text(Float32Array.from(engine.decode(Float32Array.from(z), edits)));
    return { image, states: Object.fromEntries(stages.map((s) => [s, text(engine.state(s).values)])) };
  } catch (error) {
    return { error: error.message };
  }
});
// Processor time, since others use the machine too; the first runs let the compiler finish.
const decode = (count) => { for (let i = 0; i < count; i++) engine.decode(Float32Array.from(requests[0].z)); };
decode(times ? 3 : 0);
const begin = process.cpuUsage();
decode(times);
const { user, system } = process.cpuUsage(begin);
process.stdout.write(JSON.stringify({ answers, ms: times ? (user + system) / 1000 / times : null }));
