//! I-JEPA: `ijepa_tiny`, its Hugging Face form, another resolution, and a ViT-Ti/16 on a photo.

use burn::tensor::Device;
use serde_json::Value;
use webjepa::checkpoint::EncoderChoice;
use webjepa::config::{ModelConfig, Positions, PredictorConfig, System};
use webjepa::input::{ImageView, Processor, file_name};
use webjepa::mask::Masks;
use webjepa::model::predictor::Masked;
use webjepa::model::{Encoder, Pictures, Predictor, read};
use webjepa::nn::{norm, positions};
use webjepa::probe::pool;
use webjepa::train::network::HostTensor;
use webjepa::train::recipe::Options;
use webjepa::train::trainer::{Batch, Loaded, Trainer};

use crate::expected::{flat, largest};
use crate::folder::{Folder, sizes};
use crate::report::Report;
use crate::tolerance::Quantity;

type Outcome = Result<(), String>;

pub async fn tiny(folder: &Folder, file: &str, device: &Device, report: &mut Report) -> Outcome {
    let expected = folder.json(file)?;
    let entry = folder.entry(file)?;
    let weights = entry["weights"].as_str().ok_or("no weights")?;
    let (pixels, shape) = folder.input(file, "image")?;
    let config = tiny_config(&entry["params"], &shape)?;
    let pictures = Pictures {
        pixels,
        batch: shape[0],
        frames: 1,
        size: [shape[2], shape[3]],
    };
    let context = folder.encoder(weights, &config, EncoderChoice::Context, device)?;
    let target = folder.encoder(weights, &config, EncoderChoice::Target, device)?;

    let patches = read(context.embed_patches(&pictures).map_err(text)?)
        .await
        .map_err(text)?;
    report.compare(
        "patch_embed",
        &patches.data,
        &expected["patch_embed"],
        Quantity::Activation,
    )?;

    let full = encode(&context, &pictures, None).await?;
    report.compare(
        "enc_full",
        &full,
        &expected["enc_full"],
        Quantity::Activation,
    )?;

    let mut masked = Vec::new();
    for masks in expected["config"]["masks_ctx"]
        .as_array()
        .ok_or("no masks_ctx")?
    {
        masked.extend(encode(&context, &pictures, Some(&lists(masks))).await?);
    }
    report.compare(
        "enc_ctx",
        &masked,
        &expected["enc_ctx"],
        Quantity::Activation,
    )?;

    let tokens = encode(&target, &pictures, None).await?;
    report.compare(
        "tgt_full",
        &tokens,
        &expected["tgt_full"],
        Quantity::Activation,
    )?;

    let normed = norm::without_affine(&tokens, config.hidden_size, 1e-5);
    let per_picture = config.tokens() * config.hidden_size;
    let mut targets = Vec::new();
    for masks in expected["config"]["masks_pred"]
        .as_array()
        .ok_or("no masks_pred")?
    {
        for (b, mask) in lists(masks).into_iter().enumerate() {
            targets.extend(positions::gathered(
                &normed[b * per_picture..],
                config.hidden_size,
                &[mask],
            ));
        }
    }
    report.compare(
        "targets",
        &targets,
        &expected["targets"],
        Quantity::Activation,
    )?;

    let [_, h, w] = config.grid();
    let table = positions::sincos_2d([h, w], config.hidden_size);
    report.compare("pos_embed", &table, &expected["pos_embed"], Quantity::Table)?;
    let table = positions::sincos_2d([h, w], size(&entry["params"], "pred_dim")?);
    report.compare(
        "predictor_pos_embed",
        &table,
        &expected["predictor_pos_embed"],
        Quantity::Table,
    )?;

    if let Some(hf) = entry["hf_folder"].as_str() {
        let config = hf_config(folder, hf)?;
        let encoder = folder.encoder(
            &format!("{hf}/model.safetensors"),
            &config,
            EncoderChoice::Auto,
            device,
        )?;
        let out = encode(&encoder, &pictures, None).await?;
        report.compare(
            &format!("{hf}: enc_full"),
            &out,
            &expected["enc_full"],
            Quantity::Activation,
        )?;
    }
    training(folder, file, device, &pictures, &config, report).await
}

/// The predictor, the first step's gradients, and what some steps do.
async fn training(
    folder: &Folder,
    file: &str,
    device: &Device,
    pictures: &Pictures,
    config: &ModelConfig,
    report: &mut Report,
) -> Outcome {
    let expected = folder.json(file)?;
    let entry = folder.entry(file)?;
    let params = &entry["params"];
    let weights = entry["weights"].as_str().ok_or("no weights")?;
    let mut config = config.clone();
    config.predictor = Some(PredictorConfig {
        hidden_size: size(params, "pred_dim")?,
        layers: size(params, "pred_depth")?,
        heads: size(params, "pred_heads")?,
        mlp_hidden: (number(params, "mlp_ratio_predictor")? * number(params, "pred_dim")?) as usize,
        mask_tokens: 1,
        levels: 1,
        output_size: config.hidden_size,
        actions: None,
    });
    let all = |key: &str| -> Result<Vec<Vec<Vec<usize>>>, String> {
        let masks = expected["config"][key].as_array();
        Ok(masks
            .ok_or(format!("no {key}"))?
            .iter()
            .map(lists)
            .collect())
    };
    let masks = Masks {
        context: all("masks_ctx")?.concat(),
        targets: all("masks_pred")?,
    };

    let mut parameters =
        folder.parameters(weights, &config, EncoderChoice::Context, true, device)?;
    let predictor = Predictor::take(&config, device, &mut parameters).map_err(text)?;
    let context = folder.encoder(weights, &config, EncoderChoice::Context, device)?;
    let repeated = pictures.repeated(masks.context.len() / pictures.batch);
    let seen = context
        .forward(&repeated, Some(&masks.context), 1)
        .map_err(text)?
        .remove(0);
    let masked = Masked {
        context: &masks.context,
        targets: &masks.targets,
        grid: config.grid(),
        mask_index: 0,
        picture: true,
    };
    let predicted = predictor.forward(seen, masked).map_err(text)?;
    let predicted = read(predicted).await.map_err(text)?;
    report.compare(
        "pred",
        &predicted.data,
        &expected["pred"],
        Quantity::Activation,
    )?;

    let constant = |key: &str| number(params, key);
    let (lr, decay, ema) = (constant("lr")?, constant("weight_decay")?, constant("ema")?);
    let options = serde_json::json!({
        "objective": "ijepa",
        "batchSize": pictures.batch,
        "schedule": {
            "steps": 1_000_000, "warmupSteps": 0, "lr": lr, "startLr": lr, "finalLr": lr,
            "weightDecay": decay, "finalWeightDecay": decay, "ema": ema, "finalEma": ema,
        },
        "optimizer": { "beta1": constant("beta1")?, "beta2": constant("beta2")?, "eps": constant("adam_eps")? },
        // Not drawn, but checked: the published sampler would search for ever on a grid this small.
        "masks": { "strategy": "random" },
    });
    let recipe = Options::from_json(&options.to_string())
        .and_then(|options| options.recipe(Some(config.clone())))
        .map_err(text)?;
    let load = |choice, predictor| folder.parameters(weights, &config, choice, predictor, device);
    let loaded = Loaded {
        parameters: load(EncoderChoice::Target, true)?,
        other: Some(load(EncoderChoice::Context, false)?),
        is_target: true,
        predictor: true,
    };
    let mut trainer = Trainer::from_loaded(recipe, device, loaded).map_err(text)?;
    let batch = Batch::prepared(pictures.clone(), Some(vec![masks]));

    let (_, gradients) = trainer.gradients(&batch).await.map_err(text)?;
    for (name, wanted) in expected["grads"].as_object().ok_or("no grads")? {
        let got = named(&gradients, name)?;
        let check = format!("grads: {name}");
        report.compare(&check, &got.data, wanted, Quantity::ParameterGradient)?;
    }

    let mut losses = Vec::new();
    for step in 0..size(params, "steps")? {
        let done = trainer.step(&batch).await.map_err(text)?;
        losses.push(done.loss as f32);
        if step > 0 {
            continue;
        }
        report.value(
            "grad_global_norm",
            done.grad_norm,
            &expected["grad_global_norm"],
            Quantity::Gradient,
        )?;
        let after = trainer.tensors().await.map_err(text)?;
        for (name, wanted) in expected["after_step1"]
            .as_object()
            .ok_or("no after_step1")?
        {
            let got = named(&after, name)?;
            let check = format!("after_step1: {name}");
            if name.ends_with("attn.qkv.bias") && !name.starts_with("target_encoder.") {
                // The key part of the bias has no gradient but noise, which AdamW divides by its own size: README, section 8.
                let moved = lr * config.hidden_size as f64;
                report.compare_loosely(&check, &got.data, wanted, Quantity::Updated, moved)?;
            } else {
                report.compare(&check, &got.data, wanted, Quantity::Updated)?;
            }
        }
    }
    report.compare(
        "losses_3_steps",
        &losses,
        &expected["losses_3_steps"],
        Quantity::Loss,
    )
}

fn named<'a>(tensors: &'a [HostTensor], name: &str) -> Result<&'a HostTensor, String> {
    tensors
        .iter()
        .find(|tensor| tensor.name == name)
        .ok_or(format!("there is no {name}"))
}

pub async fn interpolated(
    folder: &Folder,
    file: &str,
    device: &Device,
    report: &mut Report,
) -> Outcome {
    let expected = folder.json(file)?;
    let entry = folder.entry(file)?;
    let hf = entry["hf_folder"].as_str().ok_or("no hf_folder")?;
    let config = hf_config(folder, hf)?;
    let encoder = folder.encoder(
        &format!("{hf}/model.safetensors"),
        &config,
        EncoderChoice::Auto,
        device,
    )?;
    let (pixels, shape) = folder.input(file, "image")?;
    let pictures = Pictures {
        pixels,
        batch: shape[0],
        frames: 1,
        size: [shape[2], shape[3]],
    };
    let grid = encoder.grid(&pictures).map_err(text)?;
    let table = encoder.positions(grid).map_err(text)?.ok_or("no table")?;
    report.compare("pos", &table, &expected["pos"], Quantity::Interpolation)?;
    let out = encode(&encoder, &pictures, None).await?;
    report.compare("out", &out, &expected["out"], Quantity::Activation)?;
    Ok(())
}

pub async fn photo(folder: &Folder, file: &str, device: &Device, report: &mut Report) -> Outcome {
    let expected = folder.json(file)?;
    let entry = folder.entry(file)?;
    let hf = entry["hf_folder"].as_str().ok_or("no hf_folder")?;
    let config = hf_config(folder, hf)?;
    let processor = hf_processor(folder, hf, &config)?;
    let encoder = folder.encoder(
        &format!("{hf}/model.safetensors"),
        &config,
        EncoderChoice::Auto,
        device,
    )?;

    let name = |key: &str| {
        expected["image"][key]
            .as_str()
            .map(|n| format!("{hf}/{n}"))
            .ok_or(format!("no {key}"))
    };
    let (raw, raw_size, raw_channels) = decoded(folder.bytes(&name("file")?)?)?;
    let (resized, size, channels) = decoded(folder.bytes(&name("resized_file")?)?)?;

    let reference = ImageView::from_u8(&resized, size[1], size[0], channels);
    let pixels = processor.apply(&reference).map_err(text)?;
    report.compare(
        "pixel_values",
        &pixels,
        &expected["pixel_values"],
        Quantity::Pixels,
    )?;
    let pictures = Pictures {
        pixels,
        batch: 1,
        frames: 1,
        size,
    };

    layer_rms(report, &encoder, &pictures, &expected["layer_rms"]).await?;

    let tokens = encode(&encoder, &pictures, None).await?;
    output(
        report,
        "resized picture",
        &expected["output"],
        &tokens,
        Quantity::Photo,
        Quantity::Photo,
    )?;

    let view = ImageView::from_u8(&raw, raw_size[1], raw_size[0], raw_channels);
    let own = processor.apply(&view).map_err(text)?;
    resize_agreement(
        report,
        &own,
        &pictures.pixels,
        &expected["preprocess"]["std"],
    )?;
    let own = Pictures {
        pixels: own,
        batch: 1,
        frames: 1,
        size: processor.output_size().ok_or("no fixed size")?,
    };
    let tokens = encode(&encoder, &own, None).await?;
    output(
        report,
        "raw picture",
        &expected["output"],
        &tokens,
        Quantity::RawTokens,
        Quantity::RawPooled,
    )
}

/// The fields of `output` in an `expected.json`: pooled embedding, some tokens, all token norms.
pub(crate) fn output(
    report: &mut Report,
    what: &str,
    expected: &Value,
    tokens: &[f32],
    each: Quantity,
    pooled: Quantity,
) -> Outcome {
    let shape = sizes(&expected["shape"]);
    let (n, d) = (shape[0], shape[1]);
    let mean = pool::mean(tokens, [1, n, d]);
    report.compare(
        &format!("{what}: mean_pooled"),
        &mean,
        &expected["mean_pooled"],
        pooled,
    )?;
    if let Some(some) = expected["tokens_first8_dims16"].as_array() {
        let width = flat(&some[0]).len();
        let got: Vec<f32> = (0..some.len())
            .flat_map(|t| &tokens[t * d..t * d + width])
            .copied()
            .collect();
        report.compare(
            &format!("{what}: tokens_first8_dims16"),
            &got,
            &expected["tokens_first8_dims16"],
            each,
        )?;
    }
    let lengths: Vec<f32> = tokens
        .chunks_exact(d)
        .map(|t| t.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt() as f32)
        .collect();
    report.compare(
        &format!("{what}: token_l2"),
        &lengths,
        &expected["token_l2"],
        pooled,
    )?;
    Ok(())
}

/// Our resize against the reference's resized picture: at most one level apart, and in few values (README, section 7).
pub(crate) fn resize_agreement(
    report: &mut Report,
    own: &[f32],
    reference: &[f32],
    std: &Value,
) -> Outcome {
    let level = 1.0 / (255.0 * flat(std).first().copied().ok_or("no std")?);
    let reference: Vec<f64> = reference.iter().map(|&v| f64::from(v)).collect();
    report.number(
        "resized picture: levels apart",
        largest(own, &reference) / level,
        1.01,
    );
    let other = own
        .iter()
        .zip(&reference)
        .filter(|&(&a, &b)| (f64::from(a) - b).abs() > level / 2.0)
        .count();
    report.number(
        "resized picture: share of other values",
        other as f64 / own.len() as f64,
        0.02,
    );
    Ok(())
}

/// The root mean square of what each layer gives.
pub(crate) async fn layer_rms(
    report: &mut Report,
    encoder: &Encoder,
    pictures: &Pictures,
    expected: &Value,
) -> Outcome {
    let mut rms = Vec::new();
    for hidden in encoder.hidden_states(pictures).map_err(text)? {
        let values = read(hidden).await.map_err(text)?.data;
        let squares: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
        rms.push((squares / values.len() as f64).sqrt() as f32);
    }
    report.compare("layer_rms", &rms, expected, Quantity::Photo)
}

pub(crate) async fn encode(
    encoder: &Encoder,
    pictures: &Pictures,
    tokens: Option<&[Vec<usize>]>,
) -> Result<Vec<f32>, String> {
    let mut layers = encoder.encode(pictures, tokens, 1).await.map_err(text)?;
    Ok(layers.pop().ok_or("no output")?.data)
}

fn tiny_config(params: &Value, input: &[usize]) -> Result<ModelConfig, String> {
    let embed = size(params, "embed")?;
    let ratio = params["mlp_ratio_encoder"]
        .as_f64()
        .ok_or("no mlp_ratio_encoder")?;
    let config = ModelConfig {
        system: System::IJepa,
        image_size: [input[2], input[3]],
        patch_size: size(params, "patch")?,
        channels: input[1],
        frames: 1,
        tubelet: 1,
        hidden_size: embed,
        layers: size(params, "depth")?,
        heads: size(params, "heads")?,
        mlp_hidden: (embed as f64 * ratio) as usize,
        layer_norm_eps: params["ln_eps"].as_f64().ok_or("no ln_eps")?,
        qkv_bias: true,
        positions: Positions::Sincos,
        rope_grid: None,
        predictor: None,
        lewm: None,
    };
    config.validate().map_err(text)?;
    Ok(config)
}

pub(crate) fn hf_config(folder: &Folder, hf: &str) -> Result<ModelConfig, String> {
    let config = folder.bytes(&format!("{hf}/config.json"))?;
    ModelConfig::from_hf_json(&String::from_utf8_lossy(config)).map_err(text)
}

pub(crate) fn hf_processor(
    folder: &Folder,
    hf: &str,
    config: &ModelConfig,
) -> Result<Processor, String> {
    let processor = folder.bytes(&format!("{hf}/{}", file_name(config)))?;
    Processor::from_json(&String::from_utf8_lossy(processor)).map_err(text)
}

pub(crate) fn lists(masks: &Value) -> Vec<Vec<usize>> {
    masks
        .as_array()
        .map(|rows| rows.iter().map(sizes).collect())
        .unwrap_or_default()
}

pub(crate) fn size(params: &Value, key: &str) -> Result<usize, String> {
    params[key]
        .as_u64()
        .map(|v| v as usize)
        .ok_or(format!("no {key}"))
}

pub(crate) fn number(params: &Value, key: &str) -> Result<f64, String> {
    params[key].as_f64().ok_or(format!("no {key}"))
}

pub(crate) fn text(error: webjepa::Error) -> String {
    error.to_string()
}

/// A PNG's samples, `[height, width]` and channels.
pub(crate) fn decoded(bytes: &[u8]) -> Result<(Vec<u8>, [usize; 2], usize), String> {
    let mut decoder = zune_png::PngDecoder::new(std::io::Cursor::new(bytes));
    let samples = decoder.decode_raw().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions().ok_or("no picture")?;
    let channels = samples.len() / (width * height);
    Ok((samples, [height, width], channels))
}
