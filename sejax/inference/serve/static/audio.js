// Recording, WAV files, and the outline of a waveform: all in the page, nothing is uploaded here.

/** Records from the microphone until `stop`, which returns the samples as a WAV file. */
export class Recording {
  #context; #stream; #pieces = []; #count = 0;

  /** Begins. `heard(seconds, level)` is called as samples come, with a level from 0 to 1. */
  static async begin(heard) {
    if (!navigator.mediaDevices || !window.AudioWorkletNode) {
      throw new Error("This browser gives pages like this no microphone: open it as http://127.0.0.1 or over https.");
    }
    const recording = new Recording();
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
    try {
      recording.#stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
    } catch (error) {
      throw new Error(error.name === "NotAllowedError"
        ? "The microphone is not allowed: allow it for this page in the browser."
        : `There is no microphone that can be used (${error.name}).`);
    }
    const context = recording.#context = new AudioContext();
    await context.audioWorklet.addModule(new URL("recorder.js", import.meta.url));
    const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => {
      recording.#pieces.push(data);
      recording.#count += data.length;
      heard(recording.seconds, Math.sqrt(data.reduce((sum, x) => sum + x * x, 0) / data.length));
    };
    context.createMediaStreamSource(recording.#stream).connect(node);
    await context.resume();
    return recording;
  }

  get seconds() { return this.#count / this.#context.sampleRate; }

  get bytes() { return 44 + 2 * this.#count; }

  stop() {
    this.#stream.getTracks().forEach((track) => track.stop());
    const rate = this.#context.sampleRate;
    this.#context.close();
    return new File([wav(this.#pieces, this.#count, rate)], "recording.wav", { type: "audio/wav" });
  }
}

/** Returns a WAV file of 16 bits, mono. */
export function wav(pieces, count, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * count));
  const text = (place, word) => [...word].forEach((c, i) => view.setUint8(place + i, c.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * count, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true);
  view.setUint16(34, 16, true); text(36, "data"); view.setUint32(40, 2 * count, true);
  let place = 44;
  for (const piece of pieces) {
    for (const x of piece) {
      view.setInt16(place, Math.max(-32768, Math.min(32767, Math.round(32768 * x))), true);
      place += 2;
    }
  }
  return view.buffer;
}

/** Returns the peaks of a file in so many steps and its seconds; null if the browser cannot read its format. */
export async function outline(file, steps = 1200) {
  try {
    const decoded = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(await file.arrayBuffer());
    const samples = decoded.getChannelData(0);
    const size = samples.length / steps;
    const peaks = Array.from({ length: steps }, (_, step) => {
      let peak = 0;
      for (let i = Math.floor(step * size); i < (step + 1) * size && i < samples.length; i++) {
        peak = Math.max(peak, Math.abs(samples[i]));
      }
      return peak;
    });
    return { peaks, seconds: decoded.duration };
  } catch {
    return null;
  }
}
