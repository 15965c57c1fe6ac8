//! The input pipeline against the numbers of torch, torchvision, Pillow and OpenCV. Every parameter comes from the
//! fixture set, by default `tests/fixtures`, or the folder that `WEBJEPA_FIXTURES` names.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};
use webjepa::input::resize::{
    Filter, Geometry, Library, Sampling, interpolate, resize_f32, resize_u8,
};
use webjepa::input::{ImageView, Processor};

/// Largest allowed error of float resizes (from 0 to 255), byte resizes and position tables: fixtures/README.md §7.
const F32_TOLERANCE: f64 = 1e-3;
const U8_TOLERANCE: f64 = 1.0;
const POSITION_TOLERANCE: f64 = 5e-6;
/// Largest share of bytes of a whole picture that may differ, by one.
const DIFFERING: f64 = 0.02;

fn path(file: &str) -> PathBuf {
    let set = std::env::var_os("WEBJEPA_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"),
        PathBuf::from,
    );
    set.join(file)
}

fn text(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn json<T: for<'de> Deserialize<'de>>(file: &str) -> T {
    serde_json::from_str(&text(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Expected numbers and the cases of the manifest that have one of these kinds.
fn cases(kinds: &[&str]) -> (Map<String, Value>, Vec<Value>) {
    let manifest: Value = json("manifest.json");
    let cases = manifest["files"]["preprocess_ops.json"]["cases"]
        .as_array()
        .expect("cases")
        .clone();
    let cases: Vec<_> = cases
        .into_iter()
        .filter(|case| kinds.contains(&case["kind"].as_str().expect("kind")))
        .collect();
    assert!(!cases.is_empty(), "no cases of {kinds:?}");
    (json("preprocess_ops.json"), cases)
}

fn get<T: for<'de> Deserialize<'de>>(value: &Value) -> T {
    T::deserialize(value).unwrap_or_else(|error| panic!("{error}: {value}"))
}

fn key<'a>(case: &'a Value, name: &str) -> &'a str {
    case[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name} of {case}"))
}

fn largest_difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max)
}

#[test]
fn resizes_as_torch_pillow_and_opencv() {
    let (numbers, cases) = cases(&["resize"]);
    for case in cases {
        let planes: Vec<u8> = get(&numbers[key(&case, "input")]);
        let expected: Vec<f64> = get(&numbers[key(&case, "key")]);
        let filter = *Filter::ALL
            .iter()
            .find(|filter| filter.name() == key(&case, "filter"))
            .expect("filter");
        let antialias: bool = get(&case["antialias"]);
        let sampling = Sampling { filter, antialias };
        let [height, width]: [usize; 2] = get(&case["in_hw"]);
        let geometry = Geometry::whole([height, width], 1, get(&case["out_hw"]));

        let mut found = Vec::new();
        for plane in planes.chunks_exact(height * width) {
            let library = match key(&case, "library") {
                "torch" if key(&case, "dtype") == "f32" => {
                    let plane: Vec<f32> = plane.iter().copied().map(f32::from).collect();
                    let resized = resize_f32(&plane, &geometry, sampling).expect("resize");
                    let again =
                        interpolate(&plane, 1, &geometry.input, &geometry.resized, sampling);
                    assert_eq!(
                        again.as_ref(),
                        Ok(&resized),
                        "planar and interleaved differ: {case}"
                    );
                    found.extend(resized.into_iter().map(f64::from));
                    continue;
                }
                "torch" => Library::Torchvision(filter),
                "pil" => Library::Pillow(filter),
                "opencv" => Library::OpenCv,
                library => panic!("unknown library {library}"),
            };
            found.extend(
                resize_u8(plane, &geometry, library)
                    .expect("resize")
                    .into_iter()
                    .map(f64::from),
            );
        }
        let tolerance = if key(&case, "dtype") == "u8" {
            U8_TOLERANCE
        } else {
            F32_TOLERANCE
        };
        let difference = largest_difference(&found, &expected);
        println!("{:28} {difference:.1e}", key(&case, "key"));
        assert!(difference <= tolerance, "{case}: {difference}");
    }
}

#[test]
fn interpolates_positions_as_torch() {
    let (numbers, cases) = cases(&["pos_bicubic", "pos_trilinear"]);
    for case in cases {
        let (filter, spatial) = match key(&case, "kind") {
            "pos_bicubic" => (Filter::Bicubic, ["in_hw", "out_hw"]),
            _ => (Filter::Bilinear, ["in_thw", "out_thw"]),
        };
        let table: Vec<f32> = get(&numbers[key(&case, "input")]["data"]);
        let expected: Vec<f64> = get(&numbers[key(&case, "key")]);
        let [input, output]: [Vec<usize>; 2] = spatial.map(|name| get(&case[name]));
        let sampling = Sampling {
            filter,
            antialias: false,
        };
        let found = interpolate(&table, get(&case["channels"]), &input, &output, sampling)
            .expect("interpolate");
        let found: Vec<f64> = found.into_iter().map(f64::from).collect();
        let difference = largest_difference(&found, &expected);
        println!("{:28} {difference:.1e}", key(&case, "key"));
        assert!(difference <= POSITION_TOLERANCE, "{case}: {difference}");
    }
}

fn picture(file: &str) -> image::RgbImage {
    image::open(path(file))
        .unwrap_or_else(|error| panic!("{file}: {error}"))
        .into_rgb8()
}

fn view(picture: &image::RgbImage) -> ImageView<'_> {
    ImageView::from_u8(
        picture.as_raw(),
        picture.width() as usize,
        picture.height() as usize,
        3,
    )
}

/// Runs raw pictures through a checkpoint's processor; compares with the reference's resized bytes, and what becomes of
/// those bytes without a resize with the reference's summary of model inputs.
fn check_pictures(folder: &str, processor: &str, raw: &[String], resized: &[String]) {
    let expected: Value = json(&format!("{folder}/expected.json"));
    let processor =
        Processor::from_json(&text(&format!("{folder}/{processor}"))).expect("processor");
    let [mean, std]: [Vec<f64>; 2] = ["mean", "std"].map(|name| get(&expected["preprocess"][name]));
    let normalize_only = Processor::from_json(r#"{"do_resize": false}"#)
        .unwrap()
        .with_statistics(&mean, &std)
        .unwrap();
    let shape: Vec<usize> = get(&expected["pixel_values"]["shape"]);
    let [.., 3, height, width] = shape[..] else {
        panic!("shape {shape:?}")
    };
    assert_eq!(processor.output_size(), Some([height, width]));

    let mut pixel_values = Vec::new();
    let (mut off, mut total) = (0, 0);
    for (raw, resized) in raw.iter().zip(resized) {
        let resized = picture(&format!("{folder}/{resized}"));
        let found = processor
            .apply(&view(&picture(&format!("{folder}/{raw}"))))
            .expect("apply");
        for (index, value) in found.iter().enumerate() {
            let (channel, at) = (index / (height * width), index % (height * width));
            let byte = ((f64::from(*value) * std[channel] + mean[channel]) * 255.0).round() as i32;
            let difference = (byte - i32::from(resized.as_raw()[at * 3 + channel])).abs();
            assert!(difference <= 1, "{folder}/{raw}: off by {difference}");
            off += difference;
        }
        total += found.len();
        pixel_values.extend(normalize_only.apply(&view(&resized)).expect("apply"));
    }
    println!("{folder}: {off} of {total} bytes off by one");
    assert!(
        f64::from(off) < DIFFERING * total as f64,
        "{folder}: {off} of {total} bytes off by one"
    );

    let summary = &expected["pixel_values"];
    let values: Vec<f64> = pixel_values.into_iter().map(f64::from).collect();
    let [first, last]: [Vec<f64>; 2] = ["first", "last"].map(|name| get(&summary[name]));
    assert!(largest_difference(&values[..first.len()], &first) < 1e-6);
    assert!(largest_difference(&values[values.len() - last.len()..], &last) < 1e-6);
    let tolerance = 4.0 * 1e-6 * (values.len() as f64).sqrt();
    let sum: f64 = values.iter().sum();
    let abs_sum: f64 = values.iter().map(|value| value.abs()).sum();
    assert!(
        (sum - get::<f64>(&summary["sum"])).abs() < tolerance,
        "{folder}: sum {sum}"
    );
    assert!(
        (abs_sum - get::<f64>(&summary["abs_sum"])).abs() < tolerance,
        "{folder}: abs_sum {abs_sum}"
    );
}

#[test]
fn prepares_the_picture_of_ijepa_ti16() {
    let expected: Value = json("ijepa_ti16/expected.json");
    let [raw, resized] =
        ["file", "resized_file"].map(|name| vec![get::<String>(&expected["image"][name])]);
    check_pictures("ijepa_ti16", "preprocessor_config.json", &raw, &resized);
}

#[test]
fn prepares_the_frames_of_vjepa2_pan() {
    let expected: Value = json("vjepa2_pan/expected.json");
    let [raw, resized]: [Vec<String>; 2] =
        ["files", "resized_files"].map(|name| get(&expected["frames"][name]));
    check_pictures(
        "vjepa2_pan",
        "video_preprocessor_config.json",
        &raw,
        &resized,
    );
}
