//! The input is a processor file, then, after a line of its own that says `#`, the sides, channels and samples of a
//! picture. What is accepted can be written and read again, and makes finite numbers of the announced size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use webjepa::input::{ImageView, Processor};

/// Outputs beyond this are left out, for speed.
const MAX_PIXELS: usize = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    let at = bytes.windows(3).position(|window| window == b"\n#\n");
    let (file, picture) = at.map_or((bytes, &[][..]), |at| (&bytes[..at], &bytes[at + 3..]));
    let Ok(processor) = str::from_utf8(file)
        .map_err(drop)
        .and_then(|text| Processor::from_json(text).map_err(drop))
    else {
        return;
    };
    let written = serde_json::to_string(&processor).expect("a processor can be written");
    let again = Processor::from_json(&written).expect("what was written can be read");
    assert_eq!(again.output_size(), processor.output_size());

    let [width, height, channels, samples @ ..] = picture else {
        return;
    };
    let [width, height, channels] = [width, height, channels].map(|&byte| usize::from(byte));
    match processor.output_size_for([height, width]) {
        Ok([rows, columns]) if rows * columns > MAX_PIXELS => return,
        _ => {}
    }
    let needed = width * height * channels;
    // A short sample list is repeated, so that a few bytes of input can be a picture.
    let samples: Vec<u8> = samples.iter().copied().cycle().take(needed).collect();
    let floats: Vec<f32> = samples
        .iter()
        .map(|&sample| f32::from(sample) / 255.0)
        .collect();
    for view in [
        ImageView::from_u8(&samples, width, height, channels),
        ImageView::from_f32(&floats, width, height, channels),
    ] {
        if let Ok(planes) = processor.apply(&view) {
            let [rows, columns] = processor
                .output_size_for([height, width])
                .expect("a known size");
            assert_eq!(planes.len(), processor.channels() * rows * columns);
            assert!(planes.iter().all(|value| value.is_finite()));
        }
    }
});
