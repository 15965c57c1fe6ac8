//! Attentive probes: trained on the tokens of an encoder that stays as it is, and kept as files.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value as Json;

use super::init::fresh_probe;
use super::network::{Network, no_squares, total};
use super::save::file;
use super::schedule::Schedule;
use super::trainer::{collected, shuffled};
use crate::checkpoint::{File, probe_parameters};
use crate::device::{Precision, read_values};
use crate::model::{AttentiveProbe, PROBE_EPS, PROBE_HEADS, ProbeConfig};
use crate::nn::Parameters;
use crate::nn::ops::{self, update::AdamW};
use crate::objective::cross_entropy::cross_entropy;
use crate::{Error, Result};

/// Key, in the metadata of a file, of what its tensors do not tell.
const ABOUT: &str = "webjepa.probe";
/// Its keys.
const HEADS: &str = "heads";
const EPS: &str = "layerNormEps";
const LABELS: &str = "labels";

/// How a probe is trained. V-JEPA 1's evaluation on video has, for 20 epochs, the values that are named.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    /// Steps of the schedule.
    pub steps: u64,
    /// After the warm-up, from where it falls to 0 in half a cosine: 1e-3.
    pub learning_rate: f64,
    /// Steps in which the learning rate rises from 0: none.
    pub warmup: u64,
    /// Of matrices and of the query: 0.01.
    pub weight_decay: f64,
    /// Largest norm of a gradient; 0 for none: 1.
    pub clip: f64,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FitReport {
    /// Number of the step, from 1.
    pub step: u64,
    /// Cross entropy before the update.
    pub loss: f64,
    /// The share of the batch whose class had the highest score before the update.
    pub accuracy: f64,
    /// Learning rate.
    pub lr: f64,
}

/// What a file says of its probe beside its tensors.
#[derive(Clone, Debug)]
pub struct About {
    /// Attention heads.
    pub heads: usize,
    /// Of every norm.
    pub layer_norm_eps: f64,
    /// What the classes are called, in the order of the scores: an array, or null.
    pub labels: Json,
}

impl About {
    /// Of a file of this library; else of a Hugging Face folder, whose probes have the encoder's heads and epsilon, by its
    /// `config.json`; else of a file of the original project. `heads` is what the caller knows better than the latter two.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for a `config.json` that cannot be read, or is missing beside Hugging Face's tensors; [`Error::BadCheckpoint`]
    /// for metadata that cannot be read.
    pub fn find(files: &[File], config: Option<&str>, heads: Option<usize>) -> Result<Self> {
        let number = |json: &Json, key| json[key].as_u64().map(|number| number as usize);
        if let Some(text) = files.iter().find_map(|f| f.header.metadata.get(ABOUT)) {
            let about: Json = serde_json::from_str(text).unwrap_or_default();
            return match (number(&about, HEADS), about[EPS].as_f64()) {
                (Some(heads), Some(layer_norm_eps)) => Ok(Self {
                    heads,
                    layer_norm_eps,
                    labels: about[LABELS].clone(),
                }),
                _ => Err(Error::BadCheckpoint(
                    "what the file says of its probe cannot be read".into(),
                )),
            };
        }
        let Some(text) = config else {
            let mut names = files
                .iter()
                .flat_map(|f| &f.header.tensors)
                .map(|t| &t.name);
            if names.any(|name| name.starts_with("pooler.cross_attention_layer.")) {
                return Err(Error::BadConfig(
                    "this is a probe of Hugging Face's, whose heads config.json tells: load it with that, as from the address of its folder"
                        .into(),
                ));
            }
            return Ok(Self {
                heads: heads.unwrap_or(PROBE_HEADS),
                layer_norm_eps: PROBE_EPS,
                labels: Json::Null,
            });
        };
        let config: Json = serde_json::from_str(text)
            .map_err(|e| Error::BadConfig(format!("config.json cannot be read: {e}")))?;
        let names = &config["id2label"];
        let count = names.as_object().map_or(0, |names| names.len());
        let named = (0..count).map(|class| names.get(class.to_string()).cloned());
        Ok(Self {
            heads: heads
                .or(number(&config, "num_attention_heads"))
                .unwrap_or(PROBE_HEADS),
            // The default of transformers' VJEPA2Config.
            layer_norm_eps: config["layer_norm_eps"].as_f64().unwrap_or(1e-6),
            labels: match named.collect::<Option<Vec<_>>>() {
                Some(names) if count > 0 => Json::Array(names),
                _ => Json::Null,
            },
        })
    }

    /// # Errors
    /// [`Error::BadCheckpoint`] when there is another number of labels than of classes.
    pub fn check(&self, classes: usize) -> Result<()> {
        match self.labels.as_array() {
            Some(labels) if labels.len() != classes => Err(Error::BadCheckpoint(format!(
                "there are {} labels for the {classes} classes of the probe",
                labels.len()
            ))),
            _ => Ok(()),
        }
    }
}

/// A probe whose weights can be trained and written.
pub struct Probe {
    config: ProbeConfig,
    labels: Json,
    network: Network,
    device: Device,
    step: u64,
}

impl Probe {
    /// With fresh weights.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for sizes of which no probe can be made.
    pub fn new(config: ProbeConfig, labels: Json, seed: u64, device: &Device) -> Result<Self> {
        config.check()?;
        let mut network = Network::new("");
        for tensor in fresh_probe(&probe_parameters(config.sizes()), seed) {
            network.put(tensor, device);
        }
        Ok(Self {
            config,
            labels,
            network,
            device: device.clone(),
            step: 0,
        })
    }

    /// With the weights of a file, of which [`Plan::probe`](crate::checkpoint::Plan::probe) gives the sizes.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::MissingTensor`], [`Error::BadCheckpoint`].
    pub fn of_file(
        about: About,
        sizes: [usize; 4],
        parameters: &mut Parameters,
        device: &Device,
    ) -> Result<Self> {
        let config = ProbeConfig::of(sizes, about.heads, about.layer_norm_eps);
        config.check()?;
        about.check(config.classes)?;
        Ok(Self {
            network: Network::take("", &probe_parameters(sizes), parameters)?,
            config,
            labels: about.labels,
            device: device.clone(),
            step: 0,
        })
    }

    /// Its sizes.
    pub fn config(&self) -> &ProbeConfig {
        &self.config
    }

    /// What the classes are called: an array, or null where that is not known.
    pub fn labels(&self) -> &Json {
        &self.labels
    }

    /// Which of `length` samples the next step takes, `batch` of them: each epoch goes through all in an order of its own, and leaves out
    /// the last, incomplete batch.
    pub fn next_indices(&self, length: usize, batch: usize, seed: u64) -> Vec<usize> {
        shuffled(seed, self.step, length, batch.min(length))
    }

    /// One step on `tokens` `[labels.len(), n, d]`: cross entropy, backpropagation, AdamW.
    ///
    /// # Errors
    /// [`Error::BadInput`] for sizes that do not fit, and when the loss or the gradient is not finite: nothing has been changed then.
    /// [`Error::BadConfig`] for a schedule that cannot be.
    pub async fn step(
        &mut self,
        tokens: Vec<f32>,
        labels: &[usize],
        fit: &Fit,
    ) -> Result<FitReport> {
        let schedule = Schedule {
            steps: fit.steps,
            lr: fit.learning_rate,
            start_lr: 0.0,
            final_lr: 0.0,
            warmup_steps: Some(fit.warmup),
            ..Schedule::default()
        };
        schedule.check()?;
        let step = self.step + 1;
        let lr = schedule.lr(step);
        let tokens = self.tokens(tokens, labels.len())?;
        let device = &self.device;
        let (mut parameters, leaves) = self.network.tracked(device, Precision::F32);
        let probe = AttentiveProbe::take(&self.config, device, &mut parameters)?;
        let scores = probe.scores(probe.pooled(tokens));
        let values = read_values(scores.clone().inner()).await?;
        let result = cross_entropy(&values, labels, self.config.classes)?;
        let gradient = TensorData::new(result.gradient, scores.dims());
        let root = ops::with_gradient(scores, ops::uploaded(gradient, device));
        let gradients = collected(&[leaves], root.backward()).swap_remove(0);
        let mut squares = no_squares(device);
        for gradient in gradients.iter().flatten() {
            squares = gradient.add_squares(squares, None);
        }
        let norm = total(squares.clone()).await?.sqrt();
        if !(result.loss.is_finite() && norm.is_finite()) {
            return Err(Error::BadInput(format!(
                "step {step} of the probe was not made: the loss is {} and the norm of its gradient {norm}; lower learningRate, and look \
                 at the embeddings",
                result.loss
            )));
        }
        let numbers = |weight_decay| {
            // PyTorch's own, which the evaluations leave as they are.
            let adamw = AdamW {
                lr,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay,
                step: step as u32,
            };
            let numbers = adamw.numbers(1.0, fit.clip as f32).to_vec();
            let numbers = ops::uploaded(TensorData::new(numbers, [8]), device);
            match fit.clip > 0.0 {
                true => ops::update::clipped(&squares, numbers),
                false => numbers,
            }
        };
        let (decay, keep) = (numbers(fit.weight_decay), numbers(0.0));
        self.network.update(gradients, &decay, &keep);
        self.step = step;
        Ok(FitReport {
            step,
            loss: result.loss,
            accuracy: result.correct as f64 / labels.len() as f64,
            lr,
        })
    }

    /// The score of each class for the first `count` samples of `tokens` `[count, n, d]`: `[count, classes]`.
    ///
    /// # Errors
    /// [`Error::BadInput`] for sizes that do not fit; [`Error::Internal`] when the device fails.
    pub async fn scores(&self, tokens: Vec<f32>, count: usize) -> Result<Vec<f32>> {
        let tokens = self.tokens(tokens, count)?;
        let mut parameters = self.network.fixed(&self.device, Precision::F32);
        let probe = AttentiveProbe::take(&self.config, &self.device, &mut parameters)?;
        read_values(probe.scores(probe.pooled(tokens))).await
    }

    /// The probe as a safetensors file, by the names of V-JEPA 2's own.
    ///
    /// # Errors
    /// [`Error::Internal`] when the device fails.
    pub async fn save(&self) -> Result<Vec<u8>> {
        let about = serde_json::json!({
            HEADS: self.config.heads,
            EPS: self.config.layer_norm_eps,
            LABELS: self.labels,
        });
        file(
            &self.network.read().await?,
            &BTreeMap::from([(ABOUT.to_owned(), about.to_string())]),
        )
    }

    fn tokens(&self, tokens: Vec<f32>, count: usize) -> Result<Tensor<3>> {
        let d = self.config.hidden_size;
        if tokens.is_empty() || count == 0 || !tokens.len().is_multiple_of(count * d) {
            return Err(Error::BadInput(format!(
                "{} numbers are not the tokens of {count} samples, which are {d} wide",
                tokens.len()
            )));
        }
        let shape = [count, tokens.len() / (count * d), d];
        Ok(ops::uploaded(TensorData::new(tokens, shape), &self.device))
    }
}
