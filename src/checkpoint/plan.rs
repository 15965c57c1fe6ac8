//! What to read: the headers of a checkpoint's files checked against a configuration.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;

use super::{
    Dtype, EncoderChoice, Header, TensorInfo,
    names::{self, CONTEXT, PROBE, Parameter, Scheme, TARGET},
};
use crate::{Error, Result, config::ModelConfig};

/// Largest accepted shard index, in bytes.
pub const MAX_INDEX_BYTES: usize = 16 << 20;

/// One file of a checkpoint.
#[derive(Clone, Debug)]
pub struct File {
    /// Name, for messages and for whoever reads it.
    pub name: String,
    /// Its header.
    pub header: Header,
}

/// Which networks of a checkpoint to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selection {
    /// Which encoder.
    pub encoder: EncoderChoice,
    /// Whether to read the predictor too; those of its parameters that are called like the encoder's are named [`PREDICTOR`]`…`.
    pub predictor: bool,
    /// Whether to read the other encoder too where the checkpoint has two; its parameters are named [`OTHER`]`…`.
    pub both: bool,
    /// Whether to read the attentive probe too where the checkpoint has one.
    pub probe: bool,
}

/// What the names of the other encoder's parameters begin with.
pub const OTHER: &str = "other.";

/// What the names of those parameters of a predictor begin with that the encoder beside it has, too: V-JEPA 2.1's tokens of modality.
pub const PREDICTOR: &str = "predictor.";

/// A parameter that the checkpoint gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Name, as in the original project.
    pub name: String,
    /// Length of each axis.
    pub shape: Vec<usize>,
}

/// A byte range to read: one tensor of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Index of the file.
    pub file: usize,
    /// Name of the tensor in the file.
    pub tensor: String,
    /// First byte in the file.
    pub begin: u64,
    /// Byte after the last in the file.
    pub end: u64,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Index of the slot that it fills, wholly or in part.
    pub slot: usize,
    /// Where in the slot it goes, in elements.
    pub offset: usize,
    /// Whether it is not for the slot, but holds the scales of the rows of the int8 tensor that is read next.
    pub is_scales: bool,
}

/// All byte ranges to read, in file order, and the parameters that they make up.
#[derive(Clone, Debug)]
pub struct Plan {
    files: Vec<String>,
    reads: Vec<Read>,
    slots: Vec<Slot>,
    has_predictor: bool,
    is_target: bool,
    probe: Option<[usize; 4]>,
}

impl Plan {
    /// Checks that `files` together hold the selected networks of the model that `config` describes, and nothing that is
    /// not understood.
    pub fn new(files: &[File], config: &ModelConfig, selection: Selection) -> Result<Self> {
        config.validate()?;
        let tensors = Tensors::new(files)?;
        let encoder = names::parameters(config);
        let single = names::single(config.system);
        let (scheme, containers) = tensors.encoder_scheme(&encoder, &single, selection.encoder);
        let is_target = TARGET.contains(&scheme);
        let others: &[Scheme] = match (selection.both, is_target, containers) {
            (true, true, true) => &CONTEXT,
            (true, false, true) => &TARGET,
            _ => &[],
        };
        let mut wanted: Vec<(Scheme, Parameter, &str)> = Vec::new();
        if !others.is_empty() {
            let (found, scheme) = tensors.best(others, &encoder);
            let other = encoder.iter().filter(|_| found > 0).cloned();
            wanted.extend(other.map(|parameter| (scheme, parameter, OTHER)));
        }
        wanted.extend(encoder.into_iter().map(|parameter| (scheme, parameter, "")));
        if selection.predictor {
            let (scheme, predictor) = tensors.predictor(config)?;
            let shared: BTreeSet<String> = names::parameters(config)
                .into_iter()
                .map(|parameter| parameter.name)
                .collect();
            wanted.extend(predictor.into_iter().map(|parameter| {
                let prefix = match shared.contains(&parameter.name) {
                    true => PREDICTOR,
                    false => "",
                };
                (scheme, parameter, prefix)
            }));
        }

        let probe = tensors.probe().filter(|_| selection.probe);
        if let Some((scheme, sizes)) = probe {
            let parameters = names::probe_parameters(sizes);
            wanted.extend(
                parameters
                    .into_iter()
                    .map(|parameter| (scheme, parameter, "")),
            );
        }

        let mut plan = Self {
            probe: probe.map(|(_, sizes)| sizes),
            has_predictor: tensors
                .0
                .keys()
                .any(|name| names::is_of_predictor(name, config)),
            is_target,
            ..Self::empty(files)
        };
        let mut problems = Problems::default();
        for (scheme, parameter, prefix) in wanted {
            plan.add(files, &tensors, scheme, parameter, prefix, &mut problems);
        }
        let used: BTreeSet<&str> = plan.reads.iter().map(|read| read.tensor.as_str()).collect();
        let extra = |name: &&str| {
            !used.contains(name) && !names::is_ignored(name, containers, config.positions)
        };
        problems.extra = tensors
            .0
            .keys()
            .copied()
            .filter(extra)
            .map(String::from)
            .collect();
        problems.extra.sort_unstable();
        problems.into_result()?;
        plan.reads
            .sort_unstable_by_key(|read| (read.file, read.begin));
        Ok(plan)
    }

    /// What `files` hold of an attentive probe, beside whatever else they hold: the plan, and the probe's width, depth, MLP width and
    /// number of classes, which its tensors tell.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] where there is no probe, or not all of it; [`Error::ShapeMismatch`].
    pub fn probe(files: &[File]) -> Result<(Self, [usize; 4])> {
        let tensors = Tensors::new(files)?;
        let Some((scheme, sizes)) = tensors.probe() else {
            return Err(Error::MissingTensor(
                "the checkpoint has no attentive probe: no pooler with a cross-attention block and a linear layer".into(),
            ));
        };
        let plan = Self::of_parameters(files, &tensors, scheme, names::probe_parameters(sizes))?;
        let probe = Some(sizes);
        Ok((Self { probe, ..plan }, sizes))
    }

    /// What `files` hold of the predictor that `config` describes, or of everything that LeWorldModel has beside its encoder, whatever
    /// else they hold.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn predictor(files: &[File], config: &ModelConfig) -> Result<Self> {
        config.validate()?;
        let tensors = Tensors::new(files)?;
        let (scheme, parameters) = tensors.predictor(config)?;
        let plan = Self::of_parameters(files, &tensors, scheme, parameters)?;
        Ok(Self {
            has_predictor: true,
            ..plan
        })
    }

    fn empty(files: &[File]) -> Self {
        Self {
            files: files.iter().map(|file| file.name.clone()).collect(),
            reads: Vec::new(),
            slots: Vec::new(),
            has_predictor: false,
            is_target: false,
            probe: None,
        }
    }

    /// What to read for these parameters alone.
    fn of_parameters(
        files: &[File],
        tensors: &Tensors<'_>,
        scheme: Scheme,
        parameters: Vec<Parameter>,
    ) -> Result<Self> {
        let mut plan = Self::empty(files);
        let mut problems = Problems::default();
        for parameter in parameters {
            plan.add(files, tensors, scheme, parameter, "", &mut problems);
        }
        problems.into_result()?;
        plan.reads
            .sort_unstable_by_key(|read| (read.file, read.begin));
        Ok(plan)
    }

    /// Names of the files, as given.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// The byte ranges, in file order.
    pub fn reads(&self) -> &[Read] {
        &self.reads
    }

    /// The parameters that they make up.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Whether the checkpoint has a predictor, read or not.
    pub fn has_predictor(&self) -> bool {
        self.has_predictor
    }

    /// Whether the encoder is the target encoder of a training checkpoint.
    pub fn is_target(&self) -> bool {
        self.is_target
    }

    /// Width, depth, MLP width and number of classes of the attentive probe, where it is read.
    pub fn probe_sizes(&self) -> Option<[usize; 4]> {
        self.probe
    }

    /// Sum of the byte ranges.
    pub fn bytes_total(&self) -> u64 {
        self.reads.iter().map(|read| read.end - read.begin).sum()
    }

    fn add(
        &mut self,
        files: &[File],
        tensors: &Tensors<'_>,
        scheme: Scheme,
        parameter: Parameter,
        prefix: &str,
        problems: &mut Problems,
    ) {
        let sources = scheme.sources(&parameter);
        if parameter.optional
            && sources
                .iter()
                .all(|source| !tensors.0.contains_key(source.name.as_str()))
        {
            return;
        }
        let mut offset = 0;
        for source in sources {
            let length = source.shape.iter().product::<usize>();
            match tensors.0.get(source.name.as_str()) {
                None => problems.missing.push(source.name),
                Some(&(file, info)) => {
                    // One row of a tensor that has several: its shape is that of the other axes.
                    let own = match (source.row, info.shape.split_first()) {
                        (Some(row), Some((&rows, rest))) if row < rows => rest,
                        _ => &info.shape,
                    };
                    if own != source.shape {
                        let (expected, found) = (&source.shape, &info.shape);
                        problems.shapes.push(format!(
                            "{} (expected {expected:?}, found {found:?})",
                            source.name
                        ));
                    }
                    let data_start = files[file].header.data_start;
                    let mut read = Read {
                        file,
                        tensor: source.name,
                        begin: data_start + info.begin,
                        end: data_start + info.end,
                        dtype: info.dtype,
                        slot: self.slots.len(),
                        offset,
                        is_scales: false,
                    };
                    match (info.dtype, source.row) {
                        (Dtype::I8, None) => match tensors.scales(file, info) {
                            Ok(scales) => self.reads.push(Read {
                                tensor: scales.name.clone(),
                                begin: data_start + scales.begin,
                                end: data_start + scales.end,
                                dtype: scales.dtype,
                                is_scales: true,
                                ..read.clone()
                            }),
                            Err(why) => {
                                problems.dtypes.push(format!("{} (I8, {why})", read.tensor))
                            }
                        },
                        (dtype, _) if !dtype.is_float() => {
                            problems
                                .dtypes
                                .push(format!("{} ({})", read.tensor, dtype.name()))
                        }
                        _ => {}
                    }
                    if let Some(row) = source.row {
                        let bytes = length as u64 * info.dtype.bits() / 8;
                        read.begin += row as u64 * bytes;
                        read.end = read.begin + bytes;
                    }
                    self.reads.push(read);
                }
            }
            offset += length;
        }
        self.slots.push(Slot {
            name: format!("{prefix}{}", parameter.name),
            shape: parameter.shape,
        });
    }
}

/// The tensors of all files by name, each with the index of its file.
struct Tensors<'a>(HashMap<&'a str, (usize, &'a TensorInfo)>);

impl<'a> Tensors<'a> {
    fn new(files: &'a [File]) -> Result<Self> {
        let mut tensors = HashMap::new();
        let mut twice = BTreeSet::new();
        for (index, file) in files.iter().enumerate() {
            for info in &file.header.tensors {
                if tensors.insert(info.name.as_str(), (index, info)).is_some() {
                    twice.insert(info.name.clone());
                }
            }
        }
        match twice.is_empty() {
            true => Ok(Self(tensors)),
            false => Err(Error::BadCheckpoint(format!(
                "more than one file holds {}",
                join(twice)
            ))),
        }
    }

    /// How the chosen encoder is spelled, and whether it is one of several networks in a training checkpoint.
    fn encoder_scheme(
        &self,
        parameters: &[Parameter],
        single: &[Scheme],
        choice: EncoderChoice,
    ) -> (Scheme, bool) {
        let target = self.best(&TARGET, parameters);
        let context = self.best(&CONTEXT, parameters);
        let alone = self.best(single, parameters);
        let order = match choice {
            EncoderChoice::Auto => [target, context, alone],
            EncoderChoice::Context => [context, alone, context],
            EncoderChoice::Target => [target, alone, target],
        };
        // The last of them is what a checkpoint that holds nothing of use is told to lack.
        let (_, scheme) = order
            .into_iter()
            .find(|candidate| candidate.0 > 0)
            .unwrap_or(order[2]);
        (scheme, !single.contains(&scheme))
    }

    /// The scales of the rows of an int8 tensor, or why there are none: f32 `[rows, 1]` under the tensor's name and `_scale`, as the format
    /// of compressed-tensors names them, and before it in the file, so that no int8 value waits for its scale.
    fn scales(&self, file: usize, info: &TensorInfo) -> std::result::Result<&'a TensorInfo, &str> {
        let rows = info.shape.first().copied().unwrap_or(0);
        match self.0.get(format!("{}_scale", info.name).as_str()) {
            None => Err("without scales"),
            Some((_, scales)) if scales.dtype != Dtype::F32 || scales.shape != [rows, 1] => {
                Err("with scales that are not one F32 a row")
            }
            Some(&(at, scales)) if at != file || scales.end > info.begin => {
                Err("whose scales are not before it in the file")
            }
            Some((_, scales)) => Ok(scales),
        }
    }

    /// How the predictor is spelled, and its parameters.
    fn predictor(&self, config: &ModelConfig) -> Result<(Scheme, Vec<Parameter>)> {
        let parameters = names::predictor_parameters(config);
        if parameters.is_empty() {
            return Err(Error::BadConfig(
                "the configuration does not describe a predictor to be read".into(),
            ));
        }
        let (_, scheme) = self.best(names::predictor(config.system), &parameters);
        Ok((scheme, parameters))
    }

    /// How an attentive probe is spelled, and its width, depth, MLP width and number of classes; none where there is none.
    fn probe(&self) -> Option<(Scheme, [usize; 4])> {
        const LAST: &str = "pooler.cross_attention_block.mlp.fc1.weight";
        // The name does not depend on sizes, the shape is looked up.
        let named = |scheme: Scheme, name: &str| {
            let parameter = Parameter {
                name: name.into(),
                shape: vec![1],
                optional: false,
            };
            let source = scheme.sources(&parameter).swap_remove(0);
            let (_, info) = self.0.get(source.name.as_str())?;
            Some(&info.shape[..])
        };
        PROBE.into_iter().find_map(|scheme| {
            let (&[mlp, d], &[classes, _]) =
                (named(scheme, LAST)?, named(scheme, "linear.weight")?)
            else {
                return None;
            };
            let block =
                |i: &usize| named(scheme, &format!("pooler.blocks.{i}.norm1.weight")).is_some();
            let depth = 1 + (0..).take_while(block).count();
            Some((scheme, [d, depth, mlp, classes]))
        })
    }

    /// Of several spellings, the one that finds most, and how much it finds.
    fn best(&self, schemes: &[Scheme], parameters: &[Parameter]) -> (usize, Scheme) {
        let found = |scheme: Scheme| {
            let sources = parameters
                .iter()
                .flat_map(|parameter| scheme.sources(parameter));
            sources
                .filter(|source| self.0.contains_key(source.name.as_str()))
                .count()
        };
        let mut best = (0, schemes[0]);
        for &scheme in schemes {
            let found = found(scheme);
            if found > best.0 {
                best = (found, scheme);
            }
        }
        best
    }
}

#[derive(Default)]
struct Problems {
    missing: Vec<String>,
    extra: Vec<String>,
    shapes: Vec<String>,
    dtypes: Vec<String>,
}

impl Problems {
    fn into_result(self) -> Result<()> {
        let Self {
            missing,
            extra,
            shapes,
            dtypes,
        } = self;
        if !missing.is_empty() {
            let mut message = format!("the checkpoint lacks {}", join(missing));
            if !extra.is_empty() {
                message += &format!("; it has, but the model does not: {}", join(extra));
            }
            return Err(Error::MissingTensor(message));
        }
        if !dtypes.is_empty() {
            return Err(Error::Unsupported(format!(
                "weights must be F32, F16, BF16, or I8 with scales, but the checkpoint has {}",
                join(dtypes)
            )));
        }
        if !extra.is_empty() {
            return Err(Error::BadCheckpoint(format!(
                "the checkpoint has tensors that the model of this configuration does not: {}",
                join(extra)
            )));
        }
        if !shapes.is_empty() {
            return Err(Error::ShapeMismatch(format!(
                "the checkpoint has tensors of other shapes than the configuration says: {}",
                join(shapes)
            )));
        }
        Ok(())
    }
}

fn join(names: impl IntoIterator<Item = String>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// The files of a sharded checkpoint, sorted, from the text of its `model.safetensors.index.json`.
pub fn shards(index: &str) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    if index.len() > MAX_INDEX_BYTES {
        return Err(Error::BadCheckpoint(format!(
            "a shard index of {} bytes is longer than the {MAX_INDEX_BYTES} that are possible",
            index.len()
        )));
    }
    let index: Index = serde_json::from_str(index).map_err(|error| {
        Error::BadCheckpoint(format!("the shard index is not readable: {error}"))
    })?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    // Names become addresses beside the index, so they must not lead elsewhere.
    let plain = |name: &str| {
        !name.is_empty()
            && name != "."
            && name != ".."
            && !name.contains(['/', '\\', ':', '?', '#', '%', '\0'])
    };
    if let Some(name) = files.iter().find(|name| !plain(name)) {
        return Err(Error::BadCheckpoint(format!(
            "the shard index names {name:?}, which is not a plain file name"
        )));
    }
    match files.is_empty() {
        true => Err(Error::BadCheckpoint(
            "the shard index names no files".into(),
        )),
        false => Ok(files.into_iter().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_named_once_each() {
        let index = r#"{"metadata":{"total_size":8},"weight_map":{"a":"model-00002-of-00002.safetensors",
            "b":"model-00001-of-00002.safetensors","c":"model-00002-of-00002.safetensors"}}"#;
        let expected = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ];
        assert_eq!(shards(index).unwrap(), expected);
    }

    #[test]
    fn unusable_shard_indices_are_refused() {
        let deep = format!(
            r#"{{"weight_map":{}{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        let mut texts = vec![
            "".into(),
            "[]".into(),
            "{}".into(),
            r#"{"weight_map":{}}"#.into(),
            deep,
        ];
        texts.push(r#"{"weight_map":{"a":1}}"#.into());
        texts.push(" ".repeat(MAX_INDEX_BYTES + 1));
        for name in [
            "",
            ".",
            "..",
            "../a",
            "a/b",
            "a\\\\b",
            "https://a",
            "c:a",
            "a?b",
            "a#b",
            "%2e%2e%2fa",
            "a\\u0000",
        ] {
            texts.push(format!(r#"{{"weight_map":{{"x":"{name}"}}}}"#));
        }
        for text in texts {
            assert_eq!(
                shards(&text).unwrap_err().code(),
                "bad-checkpoint",
                "{:.80}",
                text
            );
        }
    }
}
