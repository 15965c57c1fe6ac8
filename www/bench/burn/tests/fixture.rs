//! burn's side of the bench, held to the losses of the published implementation, as the other rivals are by `tests/unit`.

use std::path::Path;

use serde_json::{Value, json};
use webjepa_bench_burn::Trainer;

fn read(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/fixtures");
    std::fs::read(folder.join(name)).unwrap()
}

fn parsed(name: &str) -> Value {
    serde_json::from_slice(&read(name)).unwrap()
}

/// All integers of nested lists, in order.
fn flat(value: &Value) -> Vec<i32> {
    match value {
        Value::Array(list) => list.iter().flat_map(flat).collect(),
        number => vec![number.as_i64().unwrap() as i32],
    }
}

/// tests/fixtures/README.md §3.
fn pseudo_random(name: &str, length: usize, amplitude: f64) -> Vec<f32> {
    let mut state = name.bytes().fold(2_166_136_261u32, |state, byte| {
        (state ^ u32::from(byte)).wrapping_mul(16_777_619)
    });
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((2.0 * f64::from(state >> 8) / f64::from(1 << 24) - 1.0) * amplitude) as f32
    };
    (0..length).map(|_| draw()).collect()
}

#[test]
fn takes_the_published_implementations_steps() {
    let entry = &parsed("manifest.json")["files"]["ijepa_tiny.json"];
    let (p, image) = (&entry["params"], &entry["inputs"]["image"]);
    let fixture = parsed("ijepa_tiny.json");
    let (context, targets) = (
        &fixture["config"]["masks_ctx"][0],
        &fixture["config"]["masks_pred"],
    );
    let tower = |size: &str, layers: &str, heads: &str| json!({ "hiddenSize": p[size], "layers": p[layers], "heads": p[heads] });
    let task = json!({
        "batch": p["batch"],
        "grid": [p["grid"], p["grid"]],
        "patchSize": p["patch"],
        "encoder": tower("embed", "depth", "heads"),
        "predictor": tower("pred_dim", "pred_depth", "pred_heads"),
        "eps": p["ln_eps"],
        "targetEps": 1e-5,
        "contextLength": context[0].as_array().unwrap().len(),
        "targetLength": targets[0][0].as_array().unwrap().len(),
        "targets": targets.as_array().unwrap().len(),
        "optimizer": { "lr": p["lr"], "weightDecay": p["weight_decay"], "beta1": p["beta1"], "beta2": p["beta2"], "eps": p["adam_eps"] },
        "momentum": p["ema"],
    });
    let Ok(mut trainer) = Trainer::new(&task.to_string()) else {
        panic!("{task} is no task");
    };

    let file = read(entry["weights"].as_str().unwrap());
    let start = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..start]).unwrap();
    for (name, tensor) in header
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
    {
        let [from, to] =
            [0, 1].map(|i| start + tensor["data_offsets"][i].as_u64().unwrap() as usize);
        let data: Vec<f32> = file[from..to]
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        let shape = flat(&tensor["shape"]);
        let decays = shape.len() > 1;
        if decays && shape[0] > 1 {
            let (rows, columns) = (shape[0] as usize, data.len() / shape[0] as usize);
            let transposed: Vec<f32> = (0..data.len())
                .map(|i| data[i % rows * columns + i / rows])
                .collect();
            trainer.put(name, &transposed, decays);
        } else {
            trainer.put(name, &data, decays);
        }
    }

    let length = flat(&image["shape"]).iter().product::<i32>() as usize;
    let pictures = pseudo_random(
        image["seed"].as_str().unwrap(),
        length,
        image["amp"].as_f64().unwrap(),
    );
    let losses = fixture["losses_3_steps"].as_array().unwrap();
    assert_eq!(losses.len(), 3);
    for loss in losses {
        let ours = f64::from(trainer.step(&pictures, &flat(context), &flat(targets)));
        assert!(
            (ours - loss.as_f64().unwrap()).abs() < 5e-7,
            "{ours} for {loss}"
        );
    }
}
