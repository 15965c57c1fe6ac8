//! A run as a file, and models out of it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::lora;
use super::network::{HostTensor, Network, Trained, predictor_prefix};
use super::recipe::{Objective, Recipe, Train};
use super::trainer::{ADAPTERS, Trainer};
use crate::checkpoint::safetensors;
use crate::checkpoint::{
    Dtype, Header, Parameter, TensorData, hugging_face, parameters, predictor_parameters,
};
use crate::config::System;
use crate::input::{evaluated_edge, file_name};
use crate::nn::Value;
use crate::probe::monitor::Spread;
use crate::train::projector;
use crate::{Error, Result};

/// Key of the recipe in the metadata of a save file.
const RECIPE: &str = "webjepa.recipe";
/// Key of the rest of the run's state there.
const STATE: &str = "webjepa.run";
/// What moments of AdamW are called, as in PyTorch's state.
const MOMENTS: [&str; 2] = ["optimizer.exp_avg.", "optimizer.exp_avg_sq."];

/// What a run needs besides its recipe and its tensors. Random numbers need the recipe's seed and the step only.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    format: u32,
    step: u64,
    ema_distance: f64,
    /// The spread at the start; absent before the first step and for batches of one picture.
    start: Option<[f64; 3]>,
}

/// The version of the format that is written, and the only one that is read.
const FORMAT: u32 = 1;

/// More steps than any run takes, and few enough that JavaScript can count on.
const MAX_STEP: u64 = 1 << 52;

/// Files of an exported model by their names.
pub type Files = BTreeMap<&'static str, Vec<u8>>;

impl Trainer {
    /// The run as one safetensors file, from which [`resume`](Self::resume) goes on with the same numbers.
    ///
    /// # Errors
    /// [`Error::Internal`] when the device fails.
    pub async fn save(&self) -> Result<Vec<u8>> {
        let mut tensors = self.tensors().await?;
        for network in &self.online {
            for parameter in &network.parameters {
                let Some(moments) = &parameter.moments else {
                    continue;
                };
                for (kind, moment) in MOMENTS.iter().zip(moments) {
                    tensors.push(HostTensor {
                        name: format!("{kind}{}{}", network.prefix, parameter.name),
                        shape: parameter.shape.clone(),
                        data: moment.read().await?,
                    });
                }
            }
        }
        let state = State {
            format: FORMAT,
            step: self.step,
            ema_distance: self.ema_distance,
            start: self
                .start
                .map(|s| [s.std, s.effective_rank, s.cosine])
                .filter(|s| s.iter().all(|v| v.is_finite())),
        };
        let metadata = [(RECIPE, json(self.recipe())?), (STATE, json(&state)?)];
        let metadata = metadata.map(|(key, text)| (key.to_owned(), text));
        file(&tensors, &BTreeMap::from(metadata))
    }

    /// A run as [`save`](Self::save) left it.
    ///
    /// # Errors
    /// [`Error::BadCheckpoint`] for other bytes, [`Error::MissingTensor`], [`Error::ShapeMismatch`].
    pub fn resume(bytes: &[u8], device: &Device) -> Result<Self> {
        let saved = Saved::read(bytes)?;
        let recipe = Recipe::from_json(saved.text(RECIPE)?)?;
        let state: State = serde_json::from_str(saved.text(STATE)?).map_err(|e| {
            Error::BadCheckpoint(format!("the state of the saved run cannot be read: {e}"))
        })?;
        if state.format != FORMAT {
            return Err(Error::Unsupported(format!(
                "the run was saved in format {}, and this version reads {FORMAT}",
                state.format
            )));
        }
        if state.step > MAX_STEP {
            return Err(Error::BadCheckpoint(format!(
                "the saved run is said to have taken {} steps, and the most is {MAX_STEP}",
                state.step
            )));
        }
        let encoder = parameters(&recipe.model);
        let (second, list) = match recipe.objective {
            Objective::Ijepa { .. } | Objective::Vjepa { .. } => {
                ("predictor.", predictor_parameters(&recipe.model))
            }
            Objective::Lejepa { .. } => (
                "projector.",
                projector::parameters(recipe.model.hidden_size, recipe.projector),
            ),
            Objective::Lewm { .. } | Objective::VJepa2Ac { .. } => (
                predictor_prefix(&recipe.model),
                predictor_parameters(&recipe.model),
            ),
        };
        let mut online = vec![
            saved.network("encoder.", &encoder, device)?,
            saved.network(second, &list, device)?,
        ];
        if let Train::Lora(lora) = recipe.train {
            let list = lora::parameters(&encoder, lora.rank);
            online.push(saved.network(ADAPTERS, &list, device)?);
        }
        let target = match recipe.objective {
            Objective::Ijepa { .. } | Objective::Vjepa { .. } => {
                Some(saved.network("target_encoder.", &encoder, device)?)
            }
            Objective::Lejepa { .. } | Objective::Lewm { .. } | Objective::VJepa2Ac { .. } => None,
        };
        let mut run = Self::assemble(recipe, device, online, target)?;
        run.step = state.step;
        run.ema_distance = state.ema_distance;
        run.start = state.start.map(|[std, effective_rank, cosine]| Spread {
            std,
            effective_rank,
            cosine,
        });
        Ok(run)
    }

    /// All parameters on the host, in the original project's layout and by its names: `encoder.…`, `predictor.…` or
    /// `projector.…` (of LeWorldModel both, and more), `adapters.…`, `target_encoder.…`.
    ///
    /// # Errors
    /// [`Error::Internal`] when the device fails.
    pub async fn tensors(&self) -> Result<Vec<HostTensor>> {
        let mut tensors = Vec::new();
        for network in self.online.iter().chain(&self.target) {
            tensors.extend(network.read().await?);
        }
        Ok(tensors)
    }

    /// The encoder that embeddings come from: the target encoder where there is one.
    pub fn encoder_network(&self) -> Cow<'_, Network> {
        match &self.target {
            Some(target) => Cow::Borrowed(target),
            None => self.online_network(),
        }
    }

    /// The predictor of masked tokens, where the objective has one.
    pub fn predictor_network(&self) -> Option<&Network> {
        self.target.as_ref().map(|_| &self.online[1])
    }

    /// Everything of a world model but its encoder, where the objective is one's.
    pub fn dynamics_network(&self) -> Option<&Network> {
        let of_world = matches!(
            self.recipe().objective,
            Objective::Lewm { .. } | Objective::VJepa2Ac { .. }
        );
        of_world.then(|| &self.online[1])
    }

    /// The encoder as a folder that transformers loads as an `IJepaModel`, or encoder and predictor as a `VJEPA2Model`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for the systems that transformers does not have; [`Error::Internal`] when the device fails.
    pub async fn export_hugging_face(&self) -> Result<Files> {
        let system = self.recipe().model.system;
        let of_actions = matches!(self.recipe().objective, Objective::VJepa2Ac { .. });
        if of_actions || !matches!(system, System::IJepa | System::VJepa2) {
            return Err(Error::Unsupported(format!(
                "transformers has no layout of {}: use \"original\"",
                if of_actions {
                    "V-JEPA 2-AC"
                } else {
                    system.name()
                }
            )));
        }
        let encoder = self.encoder_network();
        let predictor = self
            .predictor_network()
            .filter(|_| system == System::VJepa2);
        let mut tensors = Vec::new();
        for network in std::iter::once(&*encoder).chain(predictor) {
            tensors.extend(network.read().await?.into_iter().map(|mut tensor| {
                tensor.name.drain(..network.prefix.len());
                tensor
            }));
        }
        let tensors = hugging_face_tensors(system, tensors);
        let config = self.recipe().model.to_hugging_face("float32");
        // transformers refuses a file that does not say so.
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        Ok(self.files(config, file(&tensors, &metadata)?))
    }

    /// All networks by the original project's names, with the sizes as this library's own `config.json`.
    ///
    /// # Errors
    /// [`Error::Internal`] when the device fails.
    pub async fn export_original(&self) -> Result<Files> {
        let mut tensors = self.online_network().read().await?;
        let second = self.predictor_network().or(self.dynamics_network());
        for network in second.into_iter().chain(&self.target) {
            tensors.extend(network.read().await?);
        }
        let mut model = self.recipe().model.clone();
        if self.target.is_none() && self.dynamics_network().is_none() {
            model.predictor = None;
        }
        let config = serde_json::to_value(&model)
            .map_err(|e| Error::Internal(format!("the configuration cannot be written: {e}")))?;
        Ok(self.files(config, file(&tensors, &BTreeMap::new())?))
    }

    fn files(&self, config: serde_json::Value, weights: Vec<u8>) -> Files {
        let recipe = self.recipe();
        let [height, width] = recipe.model.image_size;
        let mut preprocessor = json!({
            "do_normalize": true,
            "do_rescale": true,
            "do_resize": true,
            "image_mean": recipe.normalization.mean,
            "image_std": recipe.normalization.std,
            "resample": 2,
            "rescale_factor": 1.0 / 255.0,
        });
        if recipe.model.is_video() {
            preprocessor["crop_size"] = json!({ "height": height, "width": width });
            preprocessor["do_center_crop"] = json!(true);
            preprocessor["size"] = json!({ "shortest_edge": evaluated_edge(&recipe.model) });
            preprocessor["video_processor_type"] = json!("VJEPA2VideoProcessor");
        } else {
            preprocessor["image_processor_type"] = json!("ViTImageProcessor");
            preprocessor["size"] = json!({ "height": height, "width": width });
        }
        Files::from([
            ("config.json", format!("{config:#}\n").into_bytes()),
            (
                file_name(&recipe.model),
                format!("{preprocessor:#}\n").into_bytes(),
            ),
            ("model.safetensors", weights),
        ])
    }
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|e| Error::Internal(format!("the state of the run cannot be written: {e}")))
}

/// Parameters of a model of `system` as the tensors that a Hugging Face folder has of them.
pub fn hugging_face_tensors(system: System, parameters: Vec<HostTensor>) -> Vec<HostTensor> {
    let mut tensors: Vec<HostTensor> = Vec::new();
    for HostTensor { name, shape, data } in parameters {
        let parameter = Parameter {
            name,
            shape,
            optional: false,
        };
        let mut first = 0;
        for (name, shape) in hugging_face(system, &parameter) {
            let start = first;
            first += shape.iter().product::<usize>();
            let part = &data[start..first];
            // Mask tokens are rows of one tensor.
            match tensors.iter_mut().find(|tensor| tensor.name == name) {
                Some(tensor) => {
                    tensor.data.extend_from_slice(part);
                    tensor.shape[0] += 1;
                }
                None => tensors.push(HostTensor {
                    name,
                    shape,
                    data: part.to_vec(),
                }),
            }
        }
    }
    tensors
}

/// Tensors as a safetensors file of f32 values.
pub(super) fn file(tensors: &[HostTensor], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|tensor| tensor.data.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views: Vec<TensorData> = tensors
        .iter()
        .zip(&bytes)
        .map(|(tensor, data)| TensorData {
            name: &tensor.name,
            dtype: Dtype::F32,
            shape: &tensor.shape,
            data,
        })
        .collect();
    let mut out = Vec::with_capacity(bytes.iter().map(Vec::len).sum());
    safetensors::write(&mut out, &views, metadata)
        .map_err(|e| Error::Internal(format!("the file cannot be written: {e}")))?;
    Ok(out)
}

/// A save file, checked as a safetensors file.
struct Saved<'a> {
    bytes: &'a [u8],
    header: Header,
}

impl<'a> Saved<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self> {
        let header = Header::of(bytes)?;
        Ok(Self { bytes, header })
    }

    fn text(&self, key: &str) -> Result<&str> {
        self.header
            .metadata
            .get(key)
            .map(String::as_str)
            .ok_or_else(|| {
                Error::BadCheckpoint(
                    "the file is no saved run of this library: to train from a model's weights, load the model".into(),
                )
            })
    }

    /// The values of a tensor, where the file has it.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let Some(info) = self.header.tensors.iter().find(|t| t.name == name) else {
            return Ok(None);
        };
        if info.shape != shape || info.dtype != Dtype::F32 {
            return Err(Error::ShapeMismatch(format!(
                "{name} of the saved run is {} {:?}, and its recipe says F32 {shape:?}",
                info.dtype.name(),
                info.shape
            )));
        }
        let start = self.header.data_start as usize;
        let data = &self.bytes[start + info.begin as usize..start + info.end as usize];
        let values: Vec<f32> = data
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        match values.iter().all(|v| v.is_finite()) {
            true => Ok(Some(values)),
            false => Err(Error::BadCheckpoint(format!(
                "{name} of the saved run holds values that are not finite"
            ))),
        }
    }

    fn network(
        &self,
        prefix: &'static str,
        list: &[Parameter],
        device: &Device,
    ) -> Result<Network> {
        let mut network = Network::new(prefix);
        for Parameter { name, shape, .. } in list {
            let whole = format!("{prefix}{name}");
            let data = self.tensor(&whole, shape)?.ok_or_else(|| {
                Error::MissingTensor(format!("the saved run has no tensor {whole}"))
            })?;
            network.put(
                HostTensor {
                    name: name.clone(),
                    shape: shape.clone(),
                    data,
                },
                device,
            );
        }
        for Trained {
            name,
            shape,
            moments,
            ..
        } in &mut network.parameters
        {
            let moment = |kind: &str| self.tensor(&format!("{kind}{prefix}{name}"), shape);
            if let (Some(first), Some(second)) = (moment(MOMENTS[0])?, moment(MOMENTS[1])?) {
                *moments = Some([first, second].map(|data| Value::upload(shape, data, device)));
            }
        }
        Ok(network)
    }
}
