//! Pictures and processor files of every kind, hostile ones included.

use proptest::prelude::*;
use webjepa::Error;
use webjepa::input::resize::{
    Filter, Geometry, Library, Sampling, interpolate, resize_f32, resize_u8,
};
use webjepa::input::{ImageView, MAX_OUTPUT_SIDE, MAX_SIDE, Processor};

fn processor(json: &str) -> Processor {
    Processor::from_json(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

/// Only resizes: bytes come out as they are.
fn plain(rest: &str) -> Processor {
    processor(&format!(
        r#"{{"do_rescale": false, "do_normalize": false, {rest}}}"#
    ))
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    result.expect_err("must be refused").code()
}

/// A picture without symmetry or regularity.
fn noise(samples: usize) -> Vec<u8> {
    (0..samples as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8)
        .collect()
}

#[test]
fn refuses_pictures_that_contradict_themselves() {
    let processor = Processor::default_for([16, 16]).unwrap();
    let samples = vec![0; 64];
    for (width, height, channels) in [
        (0, 4, 3),
        (4, 0, 3),
        (0, 0, 0),
        (4, 4, 0),
        (4, 4, 5),
        (4, 4, 3),
        (4, 5, 4),
        (MAX_SIDE + 1, 1, 1),
        (1, usize::MAX, 4),
        (usize::MAX, usize::MAX, usize::MAX),
        (MAX_SIDE, MAX_SIDE, 4),
    ] {
        let view = ImageView::from_u8(&samples, width, height, channels);
        assert_eq!(
            code(processor.apply(&view)),
            "bad-input",
            "{width} × {height} × {channels}"
        );
    }
    assert!(
        processor
            .apply(&ImageView::from_u8(&samples, 4, 4, 4))
            .is_ok()
    );
}

#[test]
fn refuses_samples_that_are_not_finite() {
    let processor = Processor::default_for([2, 2]).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
        let mut samples = [0.5; 12];
        samples[7] = bad;
        let error = processor
            .apply(&ImageView::from_f32(&samples, 2, 2, 3))
            .expect_err("must be refused");
        assert_eq!(error.code(), "bad-input");
        assert!(error.to_string().contains("Sample 7"), "{error}");
    }
}

#[test]
fn accepts_the_smallest_and_the_most_elongated_pictures() {
    let square = Processor::default_for([8, 8]).unwrap();
    let cropping = processor(
        r#"{"size": {"shortest_edge": 146}, "do_center_crop": true, "crop_size": {"height": 128, "width": 128}}"#,
    );
    for (width, height) in [(1, 1), (1, 1000), (1000, 1), (1, MAX_SIDE), (MAX_SIDE, 1)] {
        let samples = vec![255; width * height * 3];
        let view = ImageView::from_u8(&samples, width, height, 3);
        assert!(square.apply(&view).unwrap()[..64].iter().all(|&v| v > 2.2));
        let cropped = cropping.apply(&view).unwrap();
        assert_eq!(cropped.len(), 3 * 128 * 128);
        assert!(cropped.iter().all(|&value| value == 1.0));
    }
}

#[test]
fn refuses_outputs_beyond_the_limit() {
    let uncropped = processor(r#"{"size": {"shortest_edge": 224}}"#);
    let samples = vec![0; 1000];
    assert_eq!(
        code(uncropped.apply(&ImageView::from_u8(&samples, 1, 1000, 1))),
        "bad-input"
    );
    assert_eq!(code(uncropped.output_size_for([1, 1000])), "bad-input");
    assert_eq!(code(uncropped.output_size_for([0, 1])), "bad-input");
    assert_eq!(
        code(Processor::identity().output_size_for([MAX_OUTPUT_SIDE + 1, 1])),
        "bad-input"
    );
    assert_eq!(code(Processor::default_for([0, 224])), "bad-config");
    assert_eq!(
        code(Processor::default_for([MAX_OUTPUT_SIDE + 1, 224])),
        "bad-config"
    );
    assert_eq!(code(uncropped.clone().with_size([0, 16])), "bad-input");
    assert_eq!(
        code(uncropped.with_size([usize::MAX, usize::MAX])),
        "bad-input"
    );
}

#[test]
fn drops_alpha_and_repeats_grey() {
    let processor = Processor::default_for([5, 7]).unwrap();
    let apply = |samples: &[u8], channels| {
        processor
            .apply(&ImageView::from_u8(samples, 9, 6, channels))
            .unwrap()
    };
    let rgb = noise(9 * 6 * 3);
    let rgba: Vec<u8> = rgb
        .chunks_exact(3)
        .flat_map(|p| [p[0], p[1], p[2], p[0] ^ p[2]])
        .collect();
    assert_eq!(apply(&rgba, 4), apply(&rgb, 3));

    let grey = noise(9 * 6);
    let grey_alpha: Vec<u8> = grey.iter().flat_map(|&v| [v, !v]).collect();
    let repeated: Vec<u8> = grey.iter().flat_map(|&v| [v; 3]).collect();
    assert_eq!(apply(&grey, 1), apply(&repeated, 3));
    assert_eq!(apply(&grey_alpha, 2), apply(&repeated, 3));

    let floats: Vec<f32> = rgba.iter().map(|&v| f32::from(v) / 255.0).collect();
    let of_floats = processor
        .apply(&ImageView::from_f32(&floats, 9, 6, 4))
        .unwrap();
    // Two passes that round bytes stay within two levels of floats.
    let level = 2.0 / 255.0 / 0.224;
    assert!(
        of_floats
            .iter()
            .zip(apply(&rgba, 4))
            .all(|(a, b)| (a - b).abs() < level)
    );
}

#[test]
fn one_mean_asks_for_grey() {
    let grey = plain(r#""do_resize": false, "image_mean": [0.5], "image_std": [0.5]"#);
    assert_eq!(grey.channels(), 1);
    // Values of Pillow's convert("L").
    let rgb = [255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 200, 30];
    assert_eq!(
        grey.apply(&ImageView::from_u8(&rgb, 4, 1, 3)).unwrap(),
        [76.0, 150.0, 29.0, 124.0]
    );
    assert_eq!(
        grey.apply(&ImageView::from_u8(&[7, 9], 1, 1, 2)).unwrap(),
        [7.0]
    );
    let floats = [1.0, 1.0, 1.0, 0.0];
    let white = grey.apply(&ImageView::from_f32(&floats, 1, 1, 4)).unwrap();
    assert!((white[0] - 255.0).abs() < 1e-3);
}

#[test]
fn identity_changes_only_the_layout() {
    let samples = [-2.5, 0.1, 3.0, 0.7, 1e-3, -0.333_333_34];
    let planes = Processor::identity()
        .apply(&ImageView::from_f32(&samples, 2, 1, 3))
        .unwrap();
    assert_eq!(planes, [-2.5, 0.7, 0.1, 1e-3, 3.0, -0.333_333_34]);
}

#[test]
fn crops_the_centre_and_pads_with_black() {
    let samples: Vec<u8> = (1..=20).collect();
    let view = ImageView::from_u8(&samples, 5, 4, 1);
    let crop = |height: usize, width: usize| {
        let crop = plain(&format!(
            r#""do_resize": false, "do_center_crop": true, "crop_size": {{"height": {height}, "width": {width}}}, "image_mean": [0], "image_std": [1]"#
        ));
        assert_eq!(crop.output_size(), Some([height, width]));
        crop.apply(&view).unwrap()
    };
    assert_eq!(crop(2, 2), [7.0, 8.0, 12.0, 13.0]);
    assert_eq!(crop(1, 3), [7.0, 8.0, 9.0]);
    assert_eq!(
        crop(5, 8)[..16],
        [
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0, 0.0, 6.0, 7.0, 8.0, 9.0, 10.0, 0.0, 0.0
        ]
    );
    assert_eq!(crop(5, 8)[32..], [0.0; 8]);
}

#[test]
fn reads_every_spelling_of_a_processor() {
    let vit = processor("{}");
    assert_eq!(vit.output_size(), Some([224, 224]));
    assert_eq!(
        vit.apply(&ImageView::from_u8(&[255, 0, 0], 1, 1, 3))
            .unwrap()[224 * 224 - 1..][..2],
        [1.0, -1.0]
    );
    for same in [
        r#"{"size": 224}"#,
        r#"{"size": [224, 224]}"#,
        r#"{"size": {"height": 224, "width": 224}, "crop_size": null, "do_resize": null}"#,
        r#"{"size": {"height": 224, "width": 224, "shortest_edge": null}, "resample": 2}"#,
        r#"{"resample": "bilinear", "do_center_crop": false, "crop_size": 7}"#,
        r#"{"resample": "BILINEAR", "image_mean": 0.5, "image_std": [0.5, 0.5, 0.5]}"#,
        r#"{"rescale_factor": 0.00392156862745098, "do_convert_rgb": true, "new": {"key": []}}"#,
    ] {
        assert_eq!(processor(same), vit, "{same}");
    }
    for (index, filter) in Filter::ALL.into_iter().enumerate() {
        let by_name = processor(&format!(r#"{{"resample": "{}"}}"#, filter.name()));
        assert_eq!(by_name, processor(&format!(r#"{{"resample": {index}}}"#)));
    }
    let edge = processor(r#"{"size": {"shortest_edge": 292}}"#);
    assert_eq!(edge.output_size(), None);
    assert_eq!(edge.output_size_for([480, 640]), Ok([292, 389]));
    assert_eq!(edge.output_size_for([640, 480]), Ok([389, 292]));
}

#[test]
fn refuses_processor_files_that_make_no_sense() {
    for bad in [
        "",
        "null",
        "[]",
        "{",
        r#"{"size": "large"}"#,
        r#"{"size": -1}"#,
        r#"{"size": 0}"#,
        r#"{"size": 2.5}"#,
        r#"{"size": 99999999999999999999}"#,
        r#"{"size": 4294967296}"#,
        r#"{"size": {}}"#,
        r#"{"size": [224]}"#,
        r#"{"size": [224, 224, 224]}"#,
        r#"{"size": {"height": 224}}"#,
        r#"{"size": {"longest_edge": 224}}"#,
        r#"{"size": {"shortest_edge": 224, "longest_edge": 300}}"#,
        r#"{"size": {"height": 224, "width": 224, "shortest_edge": 224}}"#,
        r#"{"size": 1, "size": 2}"#,
        r#"{"do_resize": "yes"}"#,
        r#"{"do_center_crop": true}"#,
        r#"{"do_center_crop": true, "crop_size": {"shortest_edge": 3}}"#,
        r#"{"do_center_crop": true, "crop_size": 0}"#,
        r#"{"resample": 6}"#,
        r#"{"resample": -1}"#,
        r#"{"resample": "gaussian"}"#,
        r#"{"resample": []}"#,
        r#"{"image_mean": []}"#,
        r#"{"image_mean": [0, 0]}"#,
        r#"{"image_mean": [0, 0, 0], "image_std": [1]}"#,
        r#"{"image_mean": ["a"]}"#,
        r#"{"image_mean": [1e300, 0, 0]}"#,
        r#"{"image_std": [0, 1, 1]}"#,
        r#"{"image_std": [1e-300, 1, 1]}"#,
        r#"{"image_std": -1}"#,
        r#"{"rescale_factor": 0}"#,
        r#"{"rescale_factor": 1e400}"#,
        r#"{"rescale_factor": 1e300, "do_normalize": false}"#,
    ] {
        let error = Processor::from_json(bad).expect_err(bad);
        assert_eq!(error.code(), "bad-config", "{bad}");
        println!("{bad}\n    {error}");
    }
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    for key in ["size", "resample", "image_mean"] {
        let nested = format!(r#"{{"{key}": {deep}}}"#);
        assert_eq!(code(Processor::from_json(&nested)), "bad-config");
    }
    assert!(Processor::from_json(&format!(r#"{{"unknown": {deep}}}"#)).is_ok());
    let long = format!(r#"{{"x": "{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(code(Processor::from_json(&long)), "bad-config");
    let nan = Processor::identity().with_statistics(&[f64::NAN; 3], &[1.0; 3]);
    assert_eq!(code(nan), "bad-config");
    let nan = Processor::identity().with_statistics(&[0.0; 3], &[f64::NAN; 3]);
    assert_eq!(code(nan), "bad-config");
}

#[test]
fn writes_what_it_reads() {
    for json in [
        "{}",
        r#"{"do_resize": false, "do_rescale": false, "do_normalize": false}"#,
        r#"{"size": {"shortest_edge": 146}, "do_center_crop": true, "crop_size": 128, "resample": 3}"#,
        r#"{"size": {"height": 12, "width": 34}, "image_mean": [0.4], "image_std": [0.1]}"#,
    ] {
        let original = processor(json);
        let written = serde_json::to_string(&original).unwrap();
        assert_eq!(processor(&written), original, "{written}");
    }
}

#[test]
fn moves_to_other_resolutions() {
    let sized = |json: &str, size| {
        let moved = processor(json).with_size(size).unwrap();
        assert_eq!(moved.output_size(), Some(size));
        serde_json::to_value(moved).unwrap()
    };
    assert_eq!(
        sized("{}", [160, 96])["size"],
        serde_json::json!({"height": 160, "width": 96})
    );
    assert_eq!(
        sized(r#"{"do_resize": false}"#, [64, 64])["size"],
        serde_json::json!({"height": 64, "width": 64})
    );
    let published = r#"{"size": {"shortest_edge": 292}, "do_center_crop": true, "crop_size": 256}"#;
    assert_eq!(
        sized(published, [384, 384])["size"],
        serde_json::json!({"shortest_edge": 438})
    );
    let uncropped = sized(r#"{"size": {"shortest_edge": 224}}"#, [96, 160]);
    assert_eq!(uncropped["size"], serde_json::json!({"shortest_edge": 160}));
    let deit = r#"{"size": 256, "do_center_crop": true, "crop_size": 224}"#;
    assert_eq!(
        sized(deit, [448, 112])["size"],
        serde_json::json!({"height": 512, "width": 128})
    );
}

#[test]
fn refuses_geometry_that_contradicts_itself() {
    let sampling = Sampling {
        filter: Filter::Bilinear,
        antialias: true,
    };
    let sound = Geometry::whole([2, 3], 4, [5, 5]);
    let samples = noise(24);
    assert!(resize_u8(&samples, &sound, Library::OpenCv).is_ok());
    for broken in [
        Geometry {
            input: [3, 3],
            ..sound.clone()
        },
        Geometry {
            input: [usize::MAX, 3],
            ..sound.clone()
        },
        Geometry {
            kept: 5,
            ..sound.clone()
        },
        Geometry {
            kept: 0,
            ..sound.clone()
        },
        Geometry {
            resized: [0, 5],
            ..sound.clone()
        },
        Geometry {
            window: [0..5, 0..6],
            ..sound.clone()
        },
        Geometry {
            window: [2..2, 0..5],
            ..sound.clone()
        },
    ] {
        assert_eq!(
            code(resize_u8(&samples, &broken, Library::OpenCv)),
            "bad-input",
            "{broken:?}"
        );
        assert_eq!(
            code(resize_f32(&[0.0; 24], &broken, sampling)),
            "bad-input",
            "{broken:?}"
        );
    }
    for (channels, input, output) in [
        (2, &[2, 3][..], &[2, 3][..]),
        (1, &[24], &[24, 1]),
        (1, &[24], &[0]),
        (0, &[24], &[1]),
    ] {
        assert_eq!(
            code(interpolate(&[0.0; 24], channels, input, output, sampling)),
            "bad-input"
        );
    }
}

fn arithmetic() -> impl Strategy<Value = Library> {
    let filter = prop::sample::select(Filter::ALL.to_vec());
    prop_oneof![
        filter.clone().prop_map(Library::Pillow),
        filter.prop_map(Library::Torchvision),
        Just(Library::OpenCv),
    ]
}

/// Size, channels and samples of a small picture, and a size to bring it to.
fn pictures() -> impl Strategy<Value = (Geometry, Vec<u8>)> {
    ([1..40usize, 1..40], 1..=4usize, [1..40usize, 1..40]).prop_flat_map(
        |(input, channels, resized)| {
            let samples = prop::collection::vec(any::<u8>(), input[0] * input[1] * channels);
            (Just(Geometry::whole(input, channels, resized)), samples)
        },
    )
}

fn mirrored<T: Copy>(samples: &[T], width: usize, channels: usize) -> Vec<T> {
    let rows = samples.chunks_exact(width * channels);
    rows.flat_map(|row| row.chunks_exact(channels).rev().flatten().copied())
        .collect()
}

proptest! {
    #[test]
    fn constant_pictures_stay_constant((geometry, samples) in pictures(), library in arithmetic()) {
        let constant = vec![samples[0]; samples.len()];
        let resized = resize_u8(&constant, &geometry, library).unwrap();
        prop_assert!(resized.iter().all(|&value| value == samples[0]));
    }

    #[test]
    fn averaging_filters_stay_within_the_input((geometry, samples) in pictures(), library in arithmetic()) {
        let (min, max) = (samples.iter().min().unwrap(), samples.iter().max().unwrap());
        prop_assume!(!matches!(
            library,
            Library::Pillow(Filter::Bicubic | Filter::Lanczos) | Library::Torchvision(Filter::Bicubic | Filter::Lanczos)
        ));
        let resized = resize_u8(&samples, &geometry, library).unwrap();
        prop_assert!(resized.iter().all(|value| (min..=max).contains(&value)));
    }

    #[test]
    fn mirrored_pictures_become_mirrored_pictures(
        (geometry, samples) in pictures(),
        filter in prop::sample::select(vec![Filter::Bilinear, Filter::Hamming, Filter::Bicubic, Filter::Lanczos]),
        antialias: bool,
    ) {
        let Geometry { input: [_, width], resized: [_, narrow], channels, .. } = geometry;
        let floats: Vec<f32> = samples.iter().copied().map(f32::from).collect();
        let sampling = Sampling { filter, antialias };
        let after = mirrored(&resize_f32(&floats, &geometry, sampling).unwrap(), narrow, channels);
        let before = resize_f32(&mirrored(&floats, width, channels), &geometry, sampling).unwrap();
        prop_assert!(after.iter().zip(&before).all(|(a, b)| (a - b).abs() < 1e-3));

        let library = Library::Torchvision(filter);
        let after = mirrored(&resize_u8(&samples, &geometry, library).unwrap(), narrow, channels);
        let before = resize_u8(&mirrored(&samples, width, channels), &geometry, library).unwrap();
        prop_assert!(after.iter().zip(&before).all(|(a, b)| a.abs_diff(*b) <= 1));
    }

    #[test]
    fn a_window_is_a_part_of_the_whole(
        (geometry, samples) in pictures(),
        library in arithmetic(),
        shares in [0.0..1.0f64, 0.0..1.0, 0.0..1.0, 0.0..1.0],
    ) {
        let whole = resize_u8(&samples, &geometry, library).unwrap();
        let window = [0, 1].map(|axis| {
            let side = geometry.resized[axis];
            let start = (shares[axis] * side as f64) as usize;
            start..start + 1 + (shares[axis + 2] * (side - start) as f64) as usize
        });
        let kept = geometry.channels.min(3);
        let part = Geometry { kept, window: window.clone(), ..geometry.clone() };
        let expected: Vec<u8> = window[0]
            .clone()
            .flat_map(|row| window[1].clone().map(move |column| row * geometry.resized[1] + column))
            .flat_map(|pixel| whole[pixel * geometry.channels..][..kept].iter().copied())
            .collect();
        prop_assert_eq!(resize_u8(&samples, &part, library).unwrap(), expected);
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = Processor::from_json(&text);
    }

    #[test]
    fn any_processor_and_any_picture_give_finite_numbers(
        size in prop_oneof![
            (0..70usize).prop_map(|side| format!("{side}")),
            (1..70usize).prop_map(|edge| format!(r#"{{"shortest_edge": {edge}}}"#)),
            [1..70usize, 1..70].prop_map(|[h, w]| format!(r#"{{"height": {h}, "width": {w}}}"#)),
        ],
        resample in 0..6usize,
        [resize, crop, rescale, normalize]: [bool; 4],
        crop_size in 1..50usize,
        channels in prop::sample::select(vec![1, 3]),
        (geometry, samples) in pictures(),
    ) {
        let [mean, std] = [0.4, 0.2].map(|value| vec![value; channels]);
        let json = format!(
            r#"{{"size": {size}, "resample": {resample}, "do_resize": {resize}, "do_center_crop": {crop},
                "crop_size": {crop_size}, "do_rescale": {rescale}, "do_normalize": {normalize},
                "image_mean": {mean:?}, "image_std": {std:?}}}"#
        );
        let Ok(processor) = Processor::from_json(&json) else {
            prop_assert_eq!(size, "0");
            return Ok(());
        };
        let [height, width] = geometry.input;
        let expected = processor.output_size_for(geometry.input).unwrap();
        prop_assert_eq!(processor.output_size().unwrap_or(expected), expected);
        let view = ImageView::from_u8(&samples, width, height, geometry.channels);
        let planes = processor.apply(&view).unwrap();
        prop_assert_eq!(planes.len(), channels * expected[0] * expected[1]);
        prop_assert!(planes.iter().all(|value| value.is_finite()));
    }
}
