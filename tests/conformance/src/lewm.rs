//! LeWorldModel without its encoder, `lewm_tiny`, and a round of the cross-entropy method, `cem_step`.

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use webjepa::config::ModelConfig;
use webjepa::device::{Precision, read_values};
use webjepa::model::Dynamics;
use webjepa::nn::ops;
use webjepa::objective::lewm::LeWmLoss;
use webjepa::objective::sigreg::{Directions, Quadrature, SigReg};
use webjepa::train::network::Network;
use webjepa::world::{Axis, Candidates, Cem, Space};

use crate::expected::flat;
use crate::folder::{Folder, sizes};
use crate::report::Report;
use crate::tolerance::Quantity;

type Outcome = Result<(), String>;

pub async fn tiny(folder: &Folder, file: &str, device: &Device, report: &mut Report) -> Outcome {
    let expected = folder.json(file)?;
    let entry = folder.entry(file)?;
    let params = &entry["params"];
    let config = config(params)?;
    let weights = entry["weights"].as_str().ok_or("no weights")?;
    let mut loaded = folder.predictor(weights, &config, device)?;
    let mut network = Network::predictor(&config, &mut loaded).map_err(text)?;

    let (cls, cls_shape) = folder.input(file, "cls")?;
    let (actions, actions_shape) = folder.input(file, "actions")?;
    let [batch, steps, action]: [usize; 3] = actions_shape
        .try_into()
        .map_err(|_| "actions have no 3 axes")?;
    let [rows, d]: [usize; 2] = cls_shape.try_into().map_err(|_| "cls has no 2 axes")?;
    let history = size(params, "history")?;
    if rows != batch * steps || steps <= history {
        return Err(format!(
            "{rows} embeddings are not {batch} windows of more than {history} frames"
        ));
    }

    let (mut tracked, leaves) = network.tracked(device, Precision::F32);
    let model = Dynamics::take(&config, device, &mut tracked).map_err(text)?;
    let cls: Tensor<2> = ops::uploaded(TensorData::new(cls, [rows, d]), device);
    let leaf = cls.clone().autodiff().require_grad();
    let (embeddings, statistics) = model.project_batch(leaf.clone());
    let values = read(embeddings.clone().inner()).await?;
    report.compare(
        "emb_train",
        &values,
        &expected["emb_train"],
        Quantity::Activation,
    )?;
    let actions = TensorData::new(actions, [batch, steps, action]);
    let actions = model.embed_actions(ops::uploaded(actions, device));
    let embedded = read(actions.clone().inner()).await?;
    report.compare(
        "act_emb",
        &embedded,
        &expected["act_emb"],
        Quantity::Activation,
    )?;

    let seen = |x: Tensor<3>| {
        let of_window = |b: usize| (b * steps..b * steps + history).collect();
        let index: Vec<Vec<usize>> = (0..batch).map(of_window).collect();
        ops::select(x, None, &ops::Rows::new(&index, rows, device), None)
    };
    let windows = ops::reshaped(embeddings.clone(), [batch, steps, d]);
    let predicted = model.predict(seen(windows), seen(actions)).map_err(text)?;
    let raw = read(predicted.clone().inner()).await?;
    report.compare(
        "pred_raw",
        &raw,
        &expected["pred_raw"],
        Quantity::Activation,
    )?;
    let predicted = ops::reshaped(predicted, [batch * history, d]);
    let (predicted, _) = model.project_predicted_batch(predicted);
    let predictions = read(predicted.clone().inner()).await?;
    report.compare(
        "pred_proj_train",
        &predictions,
        &expected["pred_proj_train"],
        Quantity::Activation,
    )?;

    let columns: Vec<f32> = flat(&expected["A"]["data"])
        .iter()
        .map(|&v| v as f32)
        .collect();
    let shape: [usize; 2] = sizes(&expected["A"]["shape"])
        .try_into()
        .map_err(|_| "A has no 2 axes")?;
    let directions = Directions::from_columns(&columns, shape).map_err(text)?;
    let losses = LeWmLoss {
        weight: number(params, "sigreg_weight")?,
        sigreg: SigReg {
            quadrature: Quadrature::HalfIntervalDoubled,
            t_max: number(params, "sigreg_t_max")?,
            knots: size(params, "sigreg_knots")?,
            times_n: true,
            slices: size(params, "sigreg_slices")?,
        },
        similarity: 0.0,
    }
    .evaluate(&values, &predictions, [batch, steps, d], &directions)
    .map_err(text)?;
    for (name, got, quantity) in [
        ("pred_loss", losses.prediction, Quantity::Loss),
        ("sigreg", losses.sigreg, Quantity::Statistic),
        ("loss", losses.loss, Quantity::Loss),
    ] {
        report.value(name, got, &expected[name], quantity)?;
    }

    let upload = |gradient: Vec<f32>| {
        let shape = [gradient.len() / d, d];
        ops::uploaded::<2>(TensorData::new(gradient, shape), device)
    };
    let of_embeddings = ops::with_gradient(embeddings, upload(losses.embeddings));
    let of_predictions = ops::with_gradient(predicted, upload(losses.predictions));
    let mut gradients = ops::sum(of_embeddings, of_predictions).backward();
    let gradient = leaf.grad(&gradients).ok_or("cls has no gradient")?;
    let gradient = read(gradient).await?;
    report.compare(
        "grad_cls",
        &gradient,
        &expected["grad_cls"],
        Quantity::Gradient,
    )?;
    for (check, name) in [
        ("grad_pos", "predictor.pos_embedding"),
        (
            "grad_adaln0_bias",
            "predictor.transformer.layers.0.adaLN_modulation.1.bias",
        ),
    ] {
        let place = network.parameters.iter().position(|p| p.name == name);
        let leaf = &leaves[place.ok_or(format!("there is no {name}"))?];
        let gradient = leaf
            .gradient(&mut gradients)
            .ok_or(format!("{name} has no gradient"))?;
        let gradient = gradient.read().await.map_err(text)?;
        report.compare(check, &gradient, &expected[check], Quantity::Gradient)?;
    }

    network
        .follow_statistics("projector.net.1", statistics)
        .await
        .map_err(text)?;
    let after = &expected["bn_running_after_one_step"];
    for (name, what) in [
        ("projector.mean", "running_mean"),
        ("projector.var", "running_var"),
    ] {
        let whole = format!("projector.net.1.{what}");
        let table = network.tables.iter().find(|table| table.name == whole);
        let table = table.ok_or(format!("there is no {whole}"))?;
        let check = format!("bn_running_after_one_step: {name}");
        report.compare(&check, &table.data, &after[name], Quantity::Activation)?;
    }
    let model = Dynamics::take(&config, device, &mut network.fixed(device, Precision::F32))
        .map_err(text)?;
    let evaluated = read(model.project(cls)).await?;
    report.compare(
        "emb_eval_after_one_step",
        &evaluated,
        &expected["emb_eval_after_one_step"],
        Quantity::Activation,
    )
}

pub fn cem(folder: &Folder, file: &str, report: &mut Report) -> Outcome {
    let expected = folder.json(file)?;
    let params = folder.entry(file)?["params"].clone();
    let (count, horizon) = (size(&params, "n_candidates")?, size(&params, "horizon")?);
    let action = size(&params, "action_dim")?;
    let data = flat(&expected["candidates"]["data"]);
    let candidates = Candidates {
        data: data.iter().map(|&v| v as f32).collect(),
        count,
        horizon,
        action,
    };
    let sequences = candidates.data.chunks_exact(horizon * action);
    let costs: Vec<f32> = sequences.map(|s| s.iter().map(|v| v * v).sum()).collect();
    report.compare("cost", &costs, &expected["cost"], Quantity::Table)?;
    let cem = Cem {
        space: Space::new(horizon, vec![Axis::free(1.0); action]),
        samples: count,
        elites: size(&params, "n_elites")?,
        ..Cem::lewm(action)
    };
    let mut distribution = cem.first(None).map_err(text)?;
    let elites = cem
        .update(&mut distribution, &candidates, &costs)
        .map_err(text)?;
    let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
    let elites: Vec<f32> = elites.iter().map(|&elite| elite as f32).collect();
    report.compare(
        "elite_idx",
        &elites,
        &expected["elite_idx"],
        Quantity::Exact,
    )?;
    let (mean, std) = (narrow(&distribution.mean), narrow(&distribution.std));
    report.compare("mean", &mean, &expected["mean"], Quantity::Table)?;
    report.compare(
        "std_unbiased",
        &std,
        &expected["std_unbiased"],
        Quantity::Table,
    )
}

/// The sizes of the fixture's model; those of the encoder that it does not have are the smallest.
fn config(params: &Value) -> Result<ModelConfig, String> {
    let size = |key| size(params, key);
    let embed = size("embed")?;
    let json = serde_json::json!({
        "system": "lewm",
        "imageSize": 1,
        "patchSize": 1,
        "hiddenSize": embed,
        "layers": 1,
        "heads": 1,
        "lewm": {
            "actionSize": size("action_dim")?,
            "history": size("history")?,
            "actionChannels": size("action_smoothed_dim")?,
            "actionHidden": size("action_mlp_scale")? * embed,
            "projectorHidden": size("proj_hidden")?,
            "layers": size("depth")?,
            "heads": size("heads")?,
            "headDim": size("dim_head")?,
            "mlpHidden": size("mlp_hidden")?,
        },
    });
    ModelConfig::from_json(&json.to_string()).map_err(text)
}

async fn read<const D: usize>(x: Tensor<D>) -> Result<Vec<f32>, String> {
    read_values(x).await.map_err(text)
}

fn number(of: &Value, key: &str) -> Result<f64, String> {
    of[key].as_f64().ok_or(format!("no number {key}"))
}

fn size(of: &Value, key: &str) -> Result<usize, String> {
    let size = of[key].as_u64().ok_or(format!("no size {key}"))?;
    Ok(size as usize)
}

fn text(error: webjepa::Error) -> String {
    error.to_string()
}
