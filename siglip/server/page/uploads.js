// A picture from outside: dropped anywhere, pasted, or chosen. It goes to this service and nowhere else.
import { dataUri, Failure } from "./api.js";

const MOST_BYTES = 40e6; // base64 adds a third, and a body may have 64 MB

/** Call `taken({name, uri})` for each picture that is given; `failed(error)` for what is none. */
export function takePictures({ taken, failed }) {
  const drop = document.querySelector("#drop");
  const file = document.querySelector("#file");
  const take = async (files) => {
    const picture = [...files].find((one) => one.type.startsWith("image/") || /\.(heic|heif|jxl|tiff?|jp2)$/i.test(one.name));
    try {
      if (!picture) throw new Failure(files.length ? `${files[0].name} is no picture.` : "There is no picture file in what was dropped. Save it first, then drop the file.", 0);
      if (picture.size > MOST_BYTES) throw new Failure(`${picture.name} has ${Math.round(picture.size / 1e6)} MB, the limit is ${MOST_BYTES / 1e6}.`, 0);
      taken({ name: picture.name || "pasted picture", uri: await dataUri(picture) });
    } catch (error) {
      failed(error);
    }
  };
  document.querySelector("#pick").addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    if (file.files.length) take(file.files);
    file.value = "";
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) {
      event.preventDefault();
      take(event.clipboardData.files);
    }
  });
  let depth = 0;
  const over = (by) => {
    depth = Math.max(0, depth + by);
    drop.hidden = depth === 0;
  };
  addEventListener("dragenter", (event) => {
    event.preventDefault();
    over(1);
  });
  addEventListener("dragleave", () => over(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    over(0);
    take(event.dataTransfer.files);
  });
}
