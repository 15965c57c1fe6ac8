//! V-JEPA 1, 2 and 2.1: the tiny models, and a clip that pans over a photo.

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use webjepa::checkpoint::EncoderChoice;
use webjepa::config::{Actions, ModelConfig, Positions, PredictorConfig, System};
use webjepa::device::read_values;
use webjepa::input::{ImageView, Processor};
use webjepa::mask::Masks;
use webjepa::model::predictor::{Masked, normalised, taken};
use webjepa::model::{
    ActionPredictor, AttentiveProbe, ContextFrom, Encoder, Pictures, Predictor, ProbeConfig, Told,
    predict, read,
};
use webjepa::nn::norm;
use webjepa::nn::ops;
use webjepa::nn::positions;
use webjepa::nn::rope::{Frequencies, Rope};
use webjepa::train::recipe::Options;
use webjepa::train::trainer::{Batch, Loaded, Trainer};

use crate::expected::flat;
use crate::folder::{Folder, sizes};
use crate::ijepa::{
    decoded, encode, hf_config, hf_processor, layer_rms, lists, number, output, resize_agreement,
    size, text,
};
use crate::report::Report;
use crate::tolerance::Quantity;

type Outcome = Result<(), String>;

/// A tiny model: its fixture, and everything that is read from the manifest.
struct Tiny<'a> {
    folder: &'a Folder,
    file: &'a str,
    expected: Value,
    entry: Value,
    config: ModelConfig,
    device: &'a Device,
    /// How far activations may be off.
    quantity: Quantity,
}

impl<'a> Tiny<'a> {
    fn new(
        folder: &'a Folder,
        file: &'a str,
        system: System,
        quantity: Quantity,
        device: &'a Device,
    ) -> Result<Self, String> {
        let entry = folder.entry(file)?;
        let params = &entry["params"];
        let (_, shape) = folder.input(file, "clip")?;
        let ratio = |width: usize, key: &str| -> Result<usize, String> {
            Ok((width as f64 * number(params, key)?) as usize)
        };
        let (embed, width) = (size(params, "embed")?, size(params, "pred_dim")?);
        let levels = match system {
            System::VJepa21 => webjepa::config::LEVELS,
            _ => 1,
        };
        let config = ModelConfig {
            system,
            image_size: [shape[3], shape[4]],
            patch_size: size(params, "patch")?,
            channels: shape[1],
            frames: shape[2],
            tubelet: size(params, "tubelet")?,
            hidden_size: embed,
            layers: size(params, "depth")?,
            heads: size(params, "heads")?,
            mlp_hidden: ratio(embed, "mlp_ratio_encoder")?,
            layer_norm_eps: number(params, "ln_eps")?,
            qkv_bias: true,
            positions: match system {
                System::IJepa | System::VJepa => Positions::Sincos,
                _ => Positions::Rope,
            },
            rope_grid: params["rope_pretrained_grid"].as_u64().map(|v| v as usize),
            predictor: Some(PredictorConfig {
                hidden_size: width,
                layers: size(params, "pred_depth")?,
                heads: size(params, "pred_heads")?,
                mlp_hidden: ratio(width, "mlp_ratio_predictor")?,
                mask_tokens: size(params, "n_mask_tokens")?,
                levels,
                output_size: levels * embed,
                actions: None,
            }),
            lewm: None,
        };
        config.validate().map_err(text)?;
        Ok(Self {
            folder,
            file,
            expected: folder.json(file)?,
            entry,
            config,
            device,
            quantity,
        })
    }

    fn weights(&self) -> Result<&str, String> {
        self.entry["weights"].as_str().ok_or("no weights".into())
    }

    fn encoder(&self) -> Result<Encoder, String> {
        let choice = EncoderChoice::Context;
        self.folder
            .encoder(self.weights()?, &self.config, choice, self.device)
    }

    fn predictor(&self, weights: &str, config: &ModelConfig) -> Result<Predictor, String> {
        let choice = EncoderChoice::Auto;
        let mut parameters = self
            .folder
            .parameters(weights, config, choice, true, self.device)?;
        Predictor::take(config, self.device, &mut parameters).map_err(text)
    }

    /// A clip `[batch, channels, frames, height, width]` of the fixture, frames first.
    fn clip(&self, name: &str) -> Result<Pictures, String> {
        let (data, shape) = self.folder.input(self.file, name)?;
        let [batch, channels, frames, height, width] = shape[..] else {
            return Err(format!("{name} is no clip"));
        };
        let plane = height * width;
        let mut pixels = Vec::with_capacity(data.len());
        for clip in data.chunks_exact(channels * frames * plane) {
            for frame in 0..frames {
                for channel in clip.chunks_exact(frames * plane) {
                    pixels.extend_from_slice(&channel[frame * plane..][..plane]);
                }
            }
        }
        Ok(Pictures {
            pixels,
            batch,
            frames,
            size: [height, width],
        })
    }

    /// One of several masks, or the only one.
    fn masks(&self, key: &str) -> Vec<Vec<usize>> {
        let masks = &self.expected["config"][key];
        match masks[0][0].is_array() {
            true => lists(&masks[0]),
            false => lists(masks),
        }
    }

    fn compare(&self, report: &mut Report, check: &str, got: &[f32]) -> Outcome {
        report.compare(check, got, &self.expected[check], self.quantity)
    }

    /// A check whose key in the fixture spells out sizes.
    fn compare_keyed(&self, report: &mut Report, key: &str, got: &[f32]) -> Outcome {
        let check = self.entry["keys"][key]
            .as_str()
            .ok_or(format!("no {key}"))?;
        self.compare(report, check, got)
    }

    /// The predictor's output at the targets, from what the encoder makes of the context.
    async fn predicted(
        &self,
        predictor: &Predictor,
        seen: &Tensor<3>,
        mask_index: usize,
    ) -> Result<Vec<f32>, String> {
        let masked = Masked {
            context: &self.masks("ctx"),
            targets: &[self.masks("tgt")],
            grid: self.config.grid(),
            mask_index,
            picture: false,
        };
        let predicted = predictor.forward(seen.clone(), masked).map_err(text)?;
        Ok(read(predicted).await.map_err(text)?.data)
    }

    /// The loss that the trainer has on the fixture's masks as two kinds, each with its mask token: the mean of the published two.
    async fn trained(&self, clip: &Pictures, report: &mut Report) -> Outcome {
        let options = serde_json::json!({
            "objective": "vjepa",
            "batchSize": clip.batch,
            // Not drawn, but checked.
            "masks": { "strategy": "random" },
        });
        let recipe = Options::from_json(&options.to_string())
            .and_then(|options| options.recipe(Some(self.config.clone())))
            .map_err(text)?;
        let choice = EncoderChoice::Context;
        let parameters =
            self.folder
                .parameters(self.weights()?, &self.config, choice, true, self.device)?;
        let loaded = Loaded {
            parameters,
            other: None,
            is_target: false,
            predictor: true,
        };
        let mut trainer = Trainer::from_loaded(recipe, self.device, loaded).map_err(text)?;
        let (context, targets) = (self.masks("ctx"), self.masks("tgt"));
        let masks = Masks {
            context: [context.clone(), context].concat(),
            targets: vec![targets; 2],
        };
        let batch = Batch::prepared(clip.clone(), Some(vec![masks]));
        let (loss, _) = trainer.gradients(&batch).await.map_err(text)?;
        let losses = [&self.expected["loss_0"], &self.expected["loss_1"]];
        let wanted: f64 = losses.iter().filter_map(|loss| loss.as_f64()).sum::<f64>() / 2.0;
        let wanted = serde_json::json!(wanted);
        report.value(
            "loss of a step with both kinds",
            loss,
            &wanted,
            Quantity::Loss,
        )
    }

    /// The published probe on the encoding of the whole clip.
    async fn probe(&self, weights: &str, clip: &Pictures, report: &mut Report) -> Outcome {
        let params = &self.entry["params"];
        let (sizes, mut parameters) = self.folder.probe(weights, self.device)?;
        let [hidden_size, depth, mlp_hidden, classes] = sizes;
        let said = [
            self.config.hidden_size,
            size(params, "probe_depth")?,
            (number(params, "probe_mlp_ratio")? * hidden_size as f64) as usize,
            size(params, "probe_classes")?,
        ];
        report.number("probe: sizes", f64::from(u8::from(sizes != said)), 0.0);
        let config = ProbeConfig {
            hidden_size,
            depth,
            heads: size(params, "probe_heads")?,
            mlp_hidden,
            classes,
            layer_norm_eps: number(params, "probe_ln_eps")?,
        };
        let probe = AttentiveProbe::take(&config, self.device, &mut parameters).map_err(text)?;
        let tokens = self.encoder()?.levels(clip, None, 1).map_err(text)?;
        let pooled = probe.pooled(tokens);
        let scores = read_values(probe.scores(pooled.clone()))
            .await
            .map_err(text)?;
        let pooled = read_values(pooled).await.map_err(text)?;
        for (check, got) in [("probe_pool", pooled), ("probe_logits", scores)] {
            report.compare(check, &got, &self.expected[check], Quantity::Activation)?;
        }
        Ok(())
    }

    /// The predictor with actions, on all frames and on the first two of them.
    async fn actions(&self, report: &mut Report) -> Outcome {
        let params = &self.entry["params"];
        let weights = self.entry["weights_ac"].as_str().ok_or("no weights_ac")?;
        let width = size(params, "ac_dim")?;
        let actions = Actions {
            action_size: size(params, "ac_action_dim")?,
            state_size: size(params, "ac_state_dim")?,
        };
        let side = size(params, "ac_rope_grid_size")? * self.config.patch_size;
        let config = ModelConfig {
            image_size: [side, side],
            predictor: Some(PredictorConfig {
                hidden_size: width,
                layers: size(params, "ac_depth")?,
                heads: size(params, "ac_heads")?,
                mlp_hidden: (width as f64 * number(params, "ac_mlp_ratio")?) as usize,
                mask_tokens: 0,
                levels: 1,
                output_size: self.config.hidden_size,
                actions: Some(actions),
            }),
            ..self.config.clone()
        };
        let mut parameters = self.folder.predictor(weights, &config, self.device)?;
        let predictor =
            ActionPredictor::take(&config, self.device, &mut parameters).map_err(text)?;
        let input = |name: &str| self.folder.input(self.file, name);
        let ((tokens, shape), (actions, _), (states, _)) = (
            input("ac_tokens")?,
            input("ac_actions")?,
            input("ac_states")?,
        );
        let [batch, _, d] = shape[..] else {
            return Err("ac_tokens are no tokens".into());
        };
        let (frames, grid) = (size(params, "ac_frames")?, sizes(&params["ac_grid_hw"]));
        for (check, end) in [("ac_out", frames), ("ac_out_T2", 2)] {
            let first = |values: &[f32]| -> Vec<f32> {
                let sequences = values.chunks_exact(values.len() / batch);
                let of_frames = sequences.flat_map(|s| &s[..s.len() / frames * end]);
                of_frames.copied().collect()
            };
            let grid = [end, grid[0], grid[1]];
            let tokens =
                TensorData::new(first(&tokens), [batch, grid.iter().product::<usize>(), d]);
            let told = Told {
                actions: &first(&actions),
                states: &first(&states),
            };
            let predicted = predictor
                .forward(ops::uploaded(tokens, self.device), grid, told)
                .map_err(text)?;
            let predicted = read(predicted).await.map_err(text)?.data;
            self.compare(report, check, &predicted)?;
        }
        Ok(())
    }

    /// The normalised targets.
    async fn targets(&self, tokens: Tensor<3>) -> Result<Vec<f32>, String> {
        let normed = normalised(tokens, 1, self.device);
        let wanted = taken(normed, &[self.masks("tgt")], 1, self.device).map_err(text)?;
        Ok(read(wanted).await.map_err(text)?.data)
    }
}

fn mean_distance(a: &[f32], b: &[f32]) -> f64 {
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / a.len() as f64
}

pub async fn vjepa1(folder: &Folder, file: &str, device: &Device, report: &mut Report) -> Outcome {
    let tiny = Tiny::new(folder, file, System::VJepa, Quantity::Activation, device)?;
    let clip = tiny.clip("clip")?;
    let encoder = tiny.encoder()?;
    let full = encode(&encoder, &clip, None).await?;
    tiny.compare(report, "enc_full", &full)?;
    let context = tiny.masks("ctx");
    let seen = encoder.levels(&clip, Some(&context), 1).map_err(text)?;
    let values = read(seen.clone()).await.map_err(text)?.data;
    tiny.compare(report, "enc_ctx", &values)?;

    let predictor = tiny.predictor(tiny.weights()?, &tiny.config)?;
    let every = encoder.levels(&clip, None, 1).map_err(text)?;
    let wanted = tiny.targets(every).await?;
    for index in 0..2 {
        let predicted = tiny.predicted(&predictor, &seen, index).await?;
        tiny.compare(report, &format!("pred_{index}"), &predicted)?;
        let key = format!("loss_{index}");
        let loss = mean_distance(&predicted, &wanted);
        report.value(&key, loss, &tiny.expected[&key], Quantity::Loss)?;
    }

    tiny.trained(&clip, report).await?;
    tiny.probe(tiny.weights()?, &clip, report).await?;

    let uniform = tiny.entry["params"]["uniform_power"] != Value::Bool(false);
    let table = positions::sincos_3d(tiny.config.grid(), tiny.config.hidden_size, uniform);
    report.compare(
        "pos_embed",
        &table,
        &tiny.expected["pos_embed"],
        Quantity::Table,
    )?;
    for case in tiny.entry["cases"].as_array().into_iter().flatten() {
        if case["kind"] != "sincos3d_row" {
            report.skipped(&case.to_string(), "this kind of case is not known");
            continue;
        }
        let (dim, grid) = (size(case, "dim")?, sizes(&case["grid_hw"]));
        let uniform = case["uniform_power"] != Value::Bool(false);
        let table = positions::sincos_3d([size(case, "grid_t")?, grid[0], grid[1]], dim, uniform);
        let token = (size(case, "t")? * grid[0] + size(case, "h")?) * grid[1] + size(case, "w")?;
        let row = &table[token * dim..(token + 1) * dim];
        let key = case["key"].as_str().ok_or("no key")?;
        let wanted = &tiny.expected[key];
        let first = flat(&wanted["first"]).len();
        let check = |part: &str| format!("{key}, {part}");
        report.compare(
            &check("first"),
            &row[..first],
            &wanted["first"],
            Quantity::Table,
        )?;
        if wanted["all"].is_array() {
            report.compare(&check("all"), row, &wanted["all"], Quantity::Table)?;
        }
    }
    Ok(())
}

pub async fn vjepa2(folder: &Folder, file: &str, device: &Device, report: &mut Report) -> Outcome {
    let tiny = Tiny::new(folder, file, System::VJepa2, Quantity::Sharpened, device)?;
    let clip = tiny.clip("clip")?;
    let encoder = tiny.encoder()?;
    let patches = encoder.embed_patches(&clip).map_err(text)?;
    let patches = read(patches).await.map_err(text)?.data;
    tiny.compare(report, "patch_embed", &patches)?;
    let full = encode(&encoder, &clip, None).await?;
    tiny.compare(report, "enc_full", &full)?;
    let context = tiny.masks("ctx");
    let seen = encoder.levels(&clip, Some(&context), 1).map_err(text)?;
    let values = read(seen.clone()).await.map_err(text)?.data;
    tiny.compare(report, "enc_ctx", &values)?;
    for (key, input) in [("enc_nonsquare", "clip_ns"), ("enc_long", "clip_long")] {
        let tokens = encode(&encoder, &tiny.clip(input)?, None).await?;
        tiny.compare_keyed(report, key, &tokens)?;
    }

    let every = encoder.levels(&clip, None, 1).map_err(text)?;
    let wanted = tiny.targets(every).await?;
    tiny.compare(report, "targets", &wanted)?;
    let predictor = tiny.predictor(tiny.weights()?, &tiny.config)?;
    for index in 0..2 {
        let predicted = tiny.predicted(&predictor, &seen, index).await?;
        tiny.compare(report, &format!("pred_mask_index_{index}"), &predicted)?;
        if index == 1 {
            let loss = mean_distance(&predicted, &wanted);
            report.value(
                "l1_loss_mi1",
                loss,
                &tiny.expected["l1_loss_mi1"],
                Quantity::Loss,
            )?;
        }
    }
    rotations(&tiny, report).await?;
    hugging_face(&tiny, &clip, report).await?;
    let probe = tiny.entry["weights_probe"]
        .as_str()
        .ok_or("no weights_probe")?;
    tiny.probe(probe, &clip, report).await?;
    tiny.actions(report).await
}

/// The rotation of one axis, in both flavours, through the operation that the models use.
async fn rotations(tiny: &Tiny<'_>, report: &mut Report) -> Outcome {
    let tiled = &tiny.expected["rope_tiled"];
    let (q, at) = (flat(&tiled["q"]["data"]), flat(&tiled["pos"]));
    let shape = sizes(&tiled["q"]["shape"]);
    let n = *shape.last().ok_or("no shape")?;
    // One axis of a head of three: the others stay where they are, at position 0.
    let width = 3 * n;
    for (frequencies, check, wanted) in [
        (Frequencies::Tiled, "rope_tiled", &tiled["out"]),
        (
            Frequencies::Interleaved,
            "rope_interleaved_2_1",
            &tiny.expected["rope_interleaved_2_1"],
        ),
    ] {
        let rope = Rope {
            frequencies,
            pretrained_grid: None,
        };
        let mut qkv = Vec::new();
        let mut table = Vec::new();
        let tokens = q.len() / n;
        for (token, row) in q.chunks_exact(n).enumerate() {
            qkv.extend(row.iter().map(|&v| v as f32));
            qkv.extend(vec![0.0; 3 * width - n]);
            rope.append([at[token % at.len()], 0.0, 0.0], width, &mut table);
        }
        let qkv = TensorData::new(qkv, [1, tokens, 3 * width]);
        let table = TensorData::new(table, [tokens, 2 * width]);
        let turned = ops::rotate(
            Tensor::<3>::from_data(qkv, tiny.device),
            &Tensor::<2>::from_data(table, tiny.device),
            1,
        );
        let turned = read_values(turned).await.map_err(text)?;
        let got: Vec<f32> = turned
            .chunks_exact(3 * width)
            .flat_map(|token| &token[..n])
            .copied()
            .collect();
        report.compare(check, &got, wanted, Quantity::Table)?;
    }
    Ok(())
}

/// The same numbers from Hugging Face's layout, and what Hugging Face predicts.
async fn hugging_face(tiny: &Tiny<'_>, clip: &Pictures, report: &mut Report) -> Outcome {
    let hf = tiny.entry["hf_folder"].as_str().ok_or("no hf_folder")?;
    let config = hf_config(tiny.folder, hf)?;
    let weights = format!("{hf}/model.safetensors");
    let encoder = tiny
        .folder
        .encoder(&weights, &config, EncoderChoice::Auto, tiny.device)?;
    let full = encode(&encoder, clip, None).await?;
    let check = format!("{hf}: enc_full");
    report.compare(&check, &full, &tiny.expected["enc_full"], tiny.quantity)?;

    let predictor = tiny.predictor(&weights, &config)?;
    let masks = Masks {
        context: tiny.masks("ctx"),
        targets: vec![tiny.masks("tgt")],
    };
    let from = ContextFrom::WholeInput;
    let prediction = predict([&encoder, &encoder], &predictor, clip, &masks, from, 1)
        .await
        .map_err(text)?;
    tiny.compare(report, "hf_pred", &prediction.predicted)?;

    let plane = clip.pixels.len() / clip.batch / clip.frames;
    let first = clip
        .pixels
        .chunks_exact(plane * clip.frames)
        .flat_map(|clip| &clip[..plane]);
    let single = Pictures {
        pixels: first.copied().collect(),
        frames: 1,
        ..*clip
    };
    let tokens = encode(&encoder, &single, None).await?;
    tiny.compare(report, "hf_single_frame", &tokens)
}

pub async fn vjepa21(folder: &Folder, file: &str, device: &Device, report: &mut Report) -> Outcome {
    let tiny = Tiny::new(folder, file, System::VJepa21, Quantity::Newest, device)?;
    let encoder = tiny.encoder()?;
    let clip = tiny.clip("clip")?;
    for (check, input) in [("enc_video", "clip"), ("enc_image", "image")] {
        let tokens = encode(&encoder, &tiny.clip(input)?, None).await?;
        tiny.compare(report, check, &tokens)?;
    }
    let tokens = encode(&encoder, &tiny.clip("clip_ns")?, None).await?;
    tiny.compare_keyed(report, "enc_nonsquare", &tokens)?;

    let named: Vec<usize> = sizes(&tiny.entry["params"]["hierarchical_layers"]);
    if !named.is_empty() {
        let off = named != tiny.config.level_layers();
        report.number("hierarchical_layers", f64::from(u8::from(off)), 0.0);
    }
    let levels = webjepa::config::LEVELS;
    let (context, wanted) = (tiny.masks("ctx"), [tiny.masks("tgt")]);
    let every = encoder.levels(&clip, None, levels).map_err(text)?;
    let every = read(every).await.map_err(text)?.data;
    tiny.compare(report, "enc_hier", &every)?;
    let seen = encoder
        .levels(&clip, Some(&context), levels)
        .map_err(text)?;
    let values = read(seen.clone()).await.map_err(text)?.data;
    tiny.compare(report, "enc_hier_ctx", &values)?;

    let predictor = tiny.predictor(tiny.weights()?, &tiny.config)?;
    let masked = Masked {
        context: &context,
        targets: &wanted,
        grid: tiny.config.grid(),
        mask_index: size(&tiny.entry["params"], "mask_index").unwrap_or(0),
        picture: false,
    };
    let outputs = predictor.forward_with_context(seen, masked).map_err(text)?;
    for (check, output) in ["pred", "pred_ctx"].into_iter().zip(outputs) {
        let output = read(output).await.map_err(text)?.data;
        tiny.compare(report, check, &output)?;
    }
    Ok(())
}

pub async fn pan(folder: &Folder, file: &str, device: &Device, report: &mut Report) -> Outcome {
    let expected = folder.json(file)?;
    let entry = folder.entry(file)?;
    let hf = entry["hf_folder"].as_str().ok_or("no hf_folder")?;
    let config = hf_config(folder, hf)?;
    let processor = hf_processor(folder, hf, &config)?;
    let weights = format!("{hf}/model.safetensors");
    let encoder = folder.encoder(&weights, &config, EncoderChoice::Auto, device)?;
    let mut parameters = folder.parameters(&weights, &config, EncoderChoice::Auto, true, device)?;
    let predictor = Predictor::take(&config, device, &mut parameters).map_err(text)?;

    let processed = |key: &str| -> Result<Pictures, String> {
        let files = expected["frames"][key]
            .as_array()
            .ok_or(format!("no {key}"))?;
        let mut pixels = Vec::new();
        for name in files {
            let name = name.as_str().ok_or("no name")?;
            let (data, size, channels) = decoded(folder.bytes(&format!("{hf}/{name}"))?)?;
            let view = ImageView::from_u8(&data, size[1], size[0], channels);
            // The reference's own pixels come at the size to be embedded.
            let cropped = match key {
                "files" => processor.clone(),
                _ => Processor::default_for(size)
                    .and_then(|own| own.with_statistics(processor.mean(), processor.std()))
                    .map_err(text)?,
            };
            pixels.extend(cropped.apply(&view).map_err(text)?);
        }
        Ok(Pictures {
            pixels,
            batch: 1,
            frames: files.len(),
            size: processor.output_size().ok_or("no fixed size")?,
        })
    };
    let reference = processed("resized_files")?;
    report.compare(
        "pixel_values",
        &reference.pixels,
        &expected["pixel_values"],
        Quantity::Pixels,
    )?;
    if !expected["layer_rms"].is_null() {
        layer_rms(report, &encoder, &reference, &expected["layer_rms"]).await?;
    }

    let masks = Masks {
        context: lists(&expected["context_mask"]),
        targets: vec![lists(&expected["target_mask"])],
    };
    let own = processed("files")?;
    resize_agreement(
        report,
        &own.pixels,
        &reference.pixels,
        &expected["preprocess"]["std"],
    )?;
    for (what, clip, each, pooled) in [
        ("resized clip", &reference, Quantity::Photo, Quantity::Photo),
        ("raw clip", &own, Quantity::RawTokens, Quantity::RawPooled),
    ] {
        let tokens = encode(&encoder, clip, None).await?;
        let named = format!("{what}, encoder");
        output(report, &named, &expected["encoder"], &tokens, each, pooled)?;
        let from = ContextFrom::WholeInput;
        let index = expected["config"]["mask_index"].as_u64().unwrap_or(1) as usize;
        let prediction = predict([&encoder, &encoder], &predictor, clip, &masks, from, index)
            .await
            .map_err(text)?;
        let named = format!("{what}, predictor");
        let predicted = &prediction.predicted;
        output(
            report,
            &named,
            &expected["predictor"],
            predicted,
            each,
            pooled,
        )?;
        if what == "raw clip" {
            continue;
        }
        let d = config.hidden_size;
        let wanted = positions::gathered(&tokens, d, &masks.targets[0]);
        report.value(
            "l1_pred_vs_target",
            mean_distance(predicted, &wanted),
            &expected["l1_pred_vs_target"],
            Quantity::Photo,
        )?;
        let normed = norm::without_affine(&wanted, d, 1e-5);
        for (how, wanted) in [("", &normed), (", as predict() has it", &prediction.target)] {
            report.value(
                &format!("l1_pred_vs_target_layernormed{how}"),
                mean_distance(predicted, wanted),
                &expected["l1_pred_vs_target_layernormed"],
                Quantity::Photo,
            )?;
        }
    }
    Ok(())
}
