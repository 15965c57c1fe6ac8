//! A fixture folder in memory.

use std::collections::BTreeMap;

use serde_json::Value;
use webjepa::checkpoint::{Assembler, EncoderChoice, File, Header, Plan, Selection};
use webjepa::config::ModelConfig;
use webjepa::device::Precision;
use webjepa::model::Encoder;
use webjepa::nn::Parameters;

/// Files by their path in the folder, with `/` between parts.
#[derive(Debug, Default)]
pub struct Folder(pub BTreeMap<String, Vec<u8>>);

impl Folder {
    /// A file's bytes.
    pub fn bytes(&self, path: &str) -> Result<&[u8], String> {
        self.0
            .get(path)
            .map(Vec::as_slice)
            .ok_or_else(|| format!("{path} is not in the folder"))
    }

    /// A JSON file.
    pub fn json(&self, path: &str) -> Result<Value, String> {
        serde_json::from_slice(self.bytes(path)?).map_err(|e| format!("{path}: {e}"))
    }

    /// The fixture files that the manifest lists.
    pub fn fixture_files(&self) -> Result<Vec<String>, String> {
        let manifest = self.json("manifest.json")?;
        let files = manifest["files"]
            .as_object()
            .ok_or("manifest.json lists no files")?;
        Ok(files.keys().cloned().collect())
    }

    /// The manifest's entry of a fixture file.
    pub fn entry(&self, file: &str) -> Result<Value, String> {
        Ok(self.json("manifest.json")?["files"][file].clone())
    }

    /// A pseudo-random input as the manifest describes it, checked against the manifest's own numbers, and its shape.
    pub fn input(&self, file: &str, name: &str) -> Result<(Vec<f32>, Vec<usize>), String> {
        let manifest = self.json("manifest.json")?;
        let spec = &manifest["files"][file]["inputs"][name];
        let shape = sizes(&spec["shape"]);
        let seed = spec["seed"]
            .as_str()
            .ok_or(format!("{file}: input {name} has no seed"))?;
        let amplitude = spec["amp"].as_f64().unwrap_or(1.0);
        let recipe = &manifest["recipe"];
        let constant = |key: &str, default: u32| recipe[key].as_u64().map_or(default, |v| v as u32);
        let mut state = seed.bytes().fold(2_166_136_261u32, |h, b| {
            (h ^ u32::from(b)).wrapping_mul(16_777_619)
        });
        let (a, c) = (
            constant("lcg_a", 1_664_525),
            constant("lcg_c", 1_013_904_223),
        );
        let data: Vec<f32> = (0..shape.iter().product())
            .map(|_| {
                state = state.wrapping_mul(a).wrapping_add(c);
                ((2.0 * f64::from(state >> 8) / 16_777_216.0 - 1.0) * amplitude) as f32
            })
            .collect();
        let off = crate::expected::largest(&data, &crate::expected::flat(&spec["first"]));
        if off > 1e-6 {
            return Err(format!(
                "{file}: the generator of input {name} is off by {off}"
            ));
        }
        Ok((data, shape))
    }

    /// Loads an encoder through the same path as a user's checkpoint.
    pub fn encoder(
        &self,
        weights: &str,
        config: &ModelConfig,
        choice: EncoderChoice,
        device: &burn::tensor::Device,
    ) -> Result<Encoder, String> {
        let mut parameters = self.parameters(weights, config, choice, false, device)?;
        Encoder::new(config, Precision::F32, device, &mut parameters)
            .map_err(|e| format!("{weights}: {e}"))
    }

    /// The parameters of an encoder, and of the predictor.
    pub fn parameters(
        &self,
        weights: &str,
        config: &ModelConfig,
        encoder: EncoderChoice,
        predictor: bool,
        device: &burn::tensor::Device,
    ) -> Result<Parameters, String> {
        let selection = Selection {
            encoder,
            predictor,
            both: false,
            probe: false,
        };
        let plan = |file| Ok((Plan::new(&[file], config, selection)?, ()));
        Ok(self.read(weights, plan, device)?.1)
    }

    /// The parameters of a predictor alone.
    pub fn predictor(
        &self,
        weights: &str,
        config: &ModelConfig,
        device: &burn::tensor::Device,
    ) -> Result<Parameters, String> {
        let plan = |file| Ok((Plan::predictor(&[file], config)?, ()));
        Ok(self.read(weights, plan, device)?.1)
    }

    /// The sizes and the parameters of an attentive probe.
    pub fn probe(
        &self,
        weights: &str,
        device: &burn::tensor::Device,
    ) -> Result<([usize; 4], Parameters), String> {
        self.read(weights, |file| Plan::probe(&[file]), device)
    }

    /// What `plan` selects of a file.
    fn read<T>(
        &self,
        weights: &str,
        plan: impl Fn(File) -> webjepa::Result<(Plan, T)>,
        device: &burn::tensor::Device,
    ) -> Result<(T, Parameters), String> {
        let bytes = self.bytes(weights)?;
        let build = || -> webjepa::Result<(T, Parameters)> {
            let mut header = Header::of(bytes)?;
            // The fixtures' own name of a predictor with actions.
            for tensor in &mut header.tensors {
                if let Some(rest) = tensor.name.strip_prefix("ac.") {
                    tensor.name = format!("predictor.{rest}");
                }
            }
            let (plan, rest) = plan(File {
                name: weights.to_owned(),
                header,
            })?;
            let ranges: Vec<_> = plan
                .reads()
                .iter()
                .map(|r| r.begin as usize..r.end as usize)
                .collect();
            let mut assembler = Assembler::new(plan);
            let mut parameters = Parameters::new(device.clone(), Precision::F32);
            for (i, range) in ranges.into_iter().enumerate() {
                assembler.begin(i)?;
                // An odd chunk size, so that elements are split between chunks as in a download.
                for chunk in bytes[range].chunks(65_537) {
                    assembler.write(chunk, |piece| parameters.put(piece))?;
                }
            }
            assembler.finish()?;
            Ok((rest, parameters))
        };
        build().map_err(|e| format!("{weights}: {e}"))
    }
}

/// A list of sizes.
pub fn sizes(value: &Value) -> Vec<usize> {
    crate::expected::flat(value)
        .iter()
        .map(|&v| v as usize)
        .collect()
}
