//! The parameters of a model and what published checkpoints call them.
//!
//! The names used everywhere in this library are those of the original project, with fused queries, keys and values. A
//! `Scheme` says how a checkpoint spells them:
//!
//! | ours | Hugging Face on disk | transformers 5 in memory |
//! |---|---|---|
//! | `pos_embed` | `embeddings.position_embeddings` | same |
//! | `patch_embed.proj` | `embeddings.patch_embeddings.projection` | same |
//! | `blocks.i.norm1` | `encoder.layer.i.layernorm_before` | `layers.i.layernorm_before` |
//! | `blocks.i.attn.qkv` | `encoder.layer.i.attention.attention.{query,key,value}` | `layers.i.attention.{q,k,v}_proj` |
//! | `blocks.i.attn.proj` | `encoder.layer.i.attention.output.dense` | `layers.i.attention.o_proj` |
//! | `blocks.i.norm2` | `encoder.layer.i.layernorm_after` | `layers.i.layernorm_after` |
//! | `blocks.i.mlp.fc1` | `encoder.layer.i.intermediate.dense` | `layers.i.mlp.fc1` |
//! | `blocks.i.mlp.fc2` | `encoder.layer.i.output.dense` | `layers.i.mlp.fc2` |
//! | `norm` | `layernorm` | same |
//!
//! Hugging Face's V-JEPA 2 keeps the original names within a block (`norm1`, `mlp.fc1`, …):
//!
//! | ours | Hugging Face |
//! |---|---|
//! | `patch_embed.proj` | `encoder.embeddings.patch_embeddings.proj` |
//! | `blocks.i.attn.qkv` | `encoder.layer.i.attention.{query,key,value}` |
//! | `blocks.i.attn.proj` | `encoder.layer.i.attention.proj` |
//! | `norm` | `encoder.layernorm` |
//! | `mask_tokens.k` | row `k` of `predictor.embeddings.mask_tokens` |
//! | `predictor_embed` | `predictor.embeddings.predictor_embeddings` |
//! | `predictor_blocks.i` | `predictor.layer.i` |
//! | `predictor_norm`, `predictor_proj` | `predictor.layernorm`, `predictor.proj` |

use crate::config::{LEVELS, LeWmConfig, ModelConfig, Positions, System};
use crate::{Error, Result};

/// One parameter of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Name, as in the original project.
    pub name: String,
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// Whether it can be computed where a checkpoint lacks it.
    pub optional: bool,
}

/// Which encoder of an original checkpoint to read. Other checkpoints hold one encoder, which is then the one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncoderChoice {
    /// The target encoder where there is one, else the context encoder.
    #[default]
    Auto,
    /// The encoder that saw the context and was trained by gradients; Hugging Face conversions hold this one.
    Context,
    /// The moving average of it, which published evaluations use.
    Target,
}

impl std::str::FromStr for EncoderChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "context" => Ok(Self::Context),
            "target" => Ok(Self::Target),
            _ => Err(Error::BadInput(format!(
                "encoder {name:?} is unknown; use \"auto\", \"context\" or \"target\""
            ))),
        }
    }
}

/// The parameters of the encoder that `config` describes.
pub fn parameters(config: &ModelConfig) -> Vec<Parameter> {
    let d = config.hidden_size;
    let mut list = List::default();
    if config.system == System::LeWm {
        list.push("cls_token", &[1, 1, d]);
        list.push("position_embeddings", &[1, 1 + config.tokens(), d]);
    } else {
        list.positions("pos_embed", config, d);
    }
    let mut kernel = config.patch_kernel();
    list.affine("patch_embed.proj", &kernel, d);
    if config.system == System::VJepa21 {
        kernel[2] = 1;
        list.affine("patch_embed_img.proj", &kernel, d);
        list.modality(d);
    }
    list.blocks(
        "blocks",
        config.layers,
        d,
        config.mlp_hidden,
        config.qkv_bias,
    );
    match config.system {
        System::VJepa21 => {
            (0..LEVELS).for_each(|i| list.affine(&format!("norms_block.{i}"), &[d], d))
        }
        _ => list.affine("norm", &[d], d),
    }
    list.0
}

/// The parameters of the last norm of an encoder of `system`, up to its `.weight` and `.bias`.
pub fn last_norm(system: System) -> &'static str {
    match system {
        System::VJepa21 => "norms_block.3",
        _ => "norm",
    }
}

/// The parameters of the predictor that `config` describes, or of everything that LeWorldModel has beside its encoder; none where it
/// describes none.
pub fn predictor_parameters(config: &ModelConfig) -> Vec<Parameter> {
    if let Some(lewm) = &config.lewm {
        return lewm_parameters(lewm, config.hidden_size);
    }
    let Some(predictor) = &config.predictor else {
        return Vec::new();
    };
    let (d, p) = (config.hidden_size, predictor.hidden_size);
    let mut list = List::default();
    match config.system {
        System::IJepa => list.push("mask_token", &[1, 1, p]),
        _ => (0..predictor.mask_tokens)
            .for_each(|i| list.push(&format!("mask_tokens.{i}"), &[1, 1, p])),
    }
    if config.system == System::VJepa21 {
        list.modality(p);
    }
    if let Some(actions) = &predictor.actions {
        // The original also has an encoder of camera extrinsics, which its released configuration does not use.
        list.affine("action_encoder", &[p, actions.action_size], p);
        list.affine("state_encoder", &[p, actions.state_size], p);
    }
    list.positions("predictor_pos_embed", config, p);
    match predictor.levels {
        1 => list.affine("predictor_embed", &[p, d], p),
        levels => {
            list.affine("predictor_embed.0", &[d, levels * d], d);
            list.affine("predictor_embed.2", &[p, d], p);
        }
    }
    list.blocks(
        "predictor_blocks",
        predictor.layers,
        p,
        predictor.mlp_hidden,
        config.qkv_bias,
    );
    list.affine("predictor_norm", &[p], p);
    let out = predictor.output_size;
    list.affine("predictor_proj", &[out, p], out);
    if config.system == System::VJepa21 {
        list.affine("predictor_proj_context", &[out, p], out);
    }
    list.0
}

/// LeWorldModel's parameters but for those of its encoder, under their published names.
fn lewm_parameters(config: &LeWmConfig, d: usize) -> Vec<Parameter> {
    let LeWmConfig {
        action_size,
        history,
        action_channels,
        action_hidden,
        projector_hidden,
        mlp_hidden,
        ..
    } = *config;
    let inner = config.inner();
    let mut list = List::default();
    for projector in ["projector", "pred_proj"] {
        let of = |part| format!("{projector}.net.{part}");
        list.linear(&of(0), d, projector_hidden);
        list.affine(&of(1), &[projector_hidden], projector_hidden);
        list.push(&format!("{}.running_mean", of(1)), &[projector_hidden]);
        list.push(&format!("{}.running_var", of(1)), &[projector_hidden]);
        list.linear(&of(3), projector_hidden, d);
    }
    let kernel = [action_channels, action_size, 1];
    list.affine("action_encoder.patch_embed", &kernel, action_channels);
    list.linear("action_encoder.embed.0", action_channels, action_hidden);
    list.linear("action_encoder.embed.2", action_hidden, d);
    list.push("predictor.pos_embedding", &[1, history, d]);
    for layer in 0..config.layers {
        let of = |part: &str| format!("predictor.transformer.layers.{layer}.{part}");
        list.linear(&of("adaLN_modulation.1"), d, 6 * d);
        list.affine(&of("attn.norm"), &[d], d);
        list.push(&of("attn.to_qkv.weight"), &[3 * inner, d]);
        list.linear(&of("attn.to_out.0"), inner, d);
        list.affine(&of("mlp.net.0"), &[d], d);
        list.linear(&of("mlp.net.1"), d, mlp_hidden);
        list.linear(&of("mlp.net.4"), mlp_hidden, d);
    }
    list.affine("predictor.transformer.norm", &[d], d);
    list.0
}

/// The parameters of an attentive probe of `depth` blocks, in V-JEPA 2's names; of V-JEPA 1's the one that nobody applies is left out.
pub fn probe_parameters([d, depth, mlp, classes]: [usize; 4]) -> Vec<Parameter> {
    const LAST: &str = "pooler.cross_attention_block";
    let mut list = List::default();
    list.push("pooler.query_tokens", &[1, 1, d]);
    list.blocks("pooler.blocks", depth - 1, d, mlp, true);
    for (name, rows, columns) in [
        ("norm1", d, 0),
        ("xattn.q", d, d),
        ("xattn.kv", 2 * d, d),
        ("norm2", d, 0),
        ("mlp.fc1", mlp, d),
        ("mlp.fc2", d, mlp),
    ] {
        let shape = [rows, columns];
        let shape = if columns == 0 { &shape[..1] } else { &shape };
        list.affine(&format!("{LAST}.{name}"), shape, rows);
    }
    list.affine("linear", &[classes, d], classes);
    list.0
}

#[derive(Default)]
struct List(Vec<Parameter>);

impl List {
    fn push(&mut self, name: &str, shape: &[usize]) {
        self.0.push(Parameter {
            name: name.into(),
            shape: shape.into(),
            optional: false,
        });
    }

    fn positions(&mut self, name: &str, config: &ModelConfig, d: usize) {
        if config.positions != Positions::Rope {
            let optional = config.positions == Positions::Sincos;
            self.0.push(Parameter {
                name: name.into(),
                shape: vec![1, config.tokens(), d],
                optional,
            });
        }
    }

    fn modality(&mut self, d: usize) {
        self.push("video_mod_embed", &[1, 1, d]);
        self.push("img_mod_embed", &[1, 1, d]);
    }

    fn affine(&mut self, name: &str, weight: &[usize], bias: usize) {
        self.push(&format!("{name}.weight"), weight);
        self.push(&format!("{name}.bias"), &[bias]);
    }

    fn linear(&mut self, name: &str, d_in: usize, d_out: usize) {
        self.affine(name, &[d_out, d_in], d_out);
    }

    fn blocks(&mut self, name: &str, layers: usize, d: usize, mlp: usize, qkv_bias: bool) {
        for layer in 0..layers {
            let block = format!("{name}.{layer}");
            self.affine(&format!("{block}.norm1"), &[d], d);
            self.push(&format!("{block}.attn.qkv.weight"), &[3 * d, d]);
            if qkv_bias {
                self.push(&format!("{block}.attn.qkv.bias"), &[3 * d]);
            }
            self.affine(&format!("{block}.attn.proj"), &[d, d], d);
            self.affine(&format!("{block}.norm2"), &[d], d);
            self.affine(&format!("{block}.mlp.fc1"), &[mlp, d], mlp);
            self.affine(&format!("{block}.mlp.fc2"), &[d, mlp], d);
        }
    }
}

/// A tensor of a checkpoint that is a parameter, or the next rows of one, or of which one row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub name: String,
    pub shape: Vec<usize>,
    /// Which row, where the parameter is one row of it.
    pub row: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// The original project's own names.
    Original,
    /// What transformers writes, in every version.
    HfDisk,
    /// What transformers 5 calls them in memory.
    HfMemory,
    /// What transformers calls those of V-JEPA 2.
    HfVideo,
}

/// How a checkpoint spells the parameters of one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scheme {
    pub layout: Layout,
    pub prefix: &'static str,
}

const fn original(prefix: &'static str) -> Scheme {
    Scheme {
        layout: Layout::Original,
        prefix,
    }
}

// V-JEPA wraps its networks once more than I-JEPA does, and its distilled models call the target encoder otherwise.
pub(super) const TARGET: [Scheme; 8] = [
    original("target_encoder."),
    original("target_encoder.module."),
    original("target_encoder.backbone."),
    original("target_encoder.module.backbone."),
    original("ema_encoder."),
    original("ema_encoder.module."),
    original("ema_encoder.backbone."),
    original("ema_encoder.module.backbone."),
];
pub(super) const CONTEXT: [Scheme; 4] = [
    original("encoder."),
    original("encoder.module."),
    original("encoder.backbone."),
    original("encoder.module.backbone."),
];
/// Of a file of one encoder of `system`.
pub(super) fn single(system: System) -> Vec<Scheme> {
    let hugging_face: &[(Layout, &str)] = match system {
        System::IJepa => &[
            (Layout::HfDisk, ""),
            (Layout::HfDisk, "ijepa."),
            (Layout::HfMemory, ""),
            (Layout::HfMemory, "ijepa."),
        ],
        System::VJepa2 => &[(Layout::HfVideo, ""), (Layout::HfVideo, "vjepa2.")],
        System::LeWm => &[
            (Layout::HfDisk, "encoder."),
            (Layout::HfMemory, "encoder."),
            (Layout::HfDisk, ""),
            (Layout::HfMemory, ""),
        ],
        System::VJepa | System::VJepa21 => &[],
    };
    let hugging_face = hugging_face
        .iter()
        .map(|&(layout, prefix)| Scheme { layout, prefix });
    let originals = ["", "module.", "backbone.", "module.backbone."].map(original);
    hugging_face.chain(originals).collect()
}
/// Of the predictor of `system`.
pub(super) fn predictor(system: System) -> &'static [Scheme] {
    match system {
        System::LeWm => &LEWM,
        _ => &PREDICTOR,
    }
}
/// LeWorldModel's parts have names of their own.
const LEWM: [Scheme; 1] = [original("")];
const PREDICTOR: [Scheme; 6] = [
    original("predictor."),
    original("predictor.module."),
    original("predictor.backbone."),
    original("predictor.module.backbone."),
    Scheme {
        layout: Layout::HfVideo,
        prefix: "",
    },
    Scheme {
        layout: Layout::HfVideo,
        prefix: "vjepa2.",
    },
];

/// Of attentive probes: Hugging Face's classifiers, and the original files, which hold one probe (V-JEPA 1) or a list of them.
pub(super) const PROBE: [Scheme; 8] = [
    original(""),
    original("probe."),
    original("module."),
    original("classifier."),
    original("classifier.module."),
    original("classifiers.0."),
    original("classifiers.0.module."),
    Scheme {
        layout: Layout::HfVideo,
        prefix: "",
    },
];

/// Ours, on disk, in memory.
const BLOCK: [(&str, &[&str], &[&str]); 6] = [
    ("norm1", &["layernorm_before"], &["layernorm_before"]),
    (
        "attn.qkv",
        &[
            "attention.attention.query",
            "attention.attention.key",
            "attention.attention.value",
        ],
        &["attention.q_proj", "attention.k_proj", "attention.v_proj"],
    ),
    (
        "attn.proj",
        &["attention.output.dense"],
        &["attention.o_proj"],
    ),
    ("norm2", &["layernorm_after"], &["layernorm_after"]),
    ("mlp.fc1", &["intermediate.dense"], &["mlp.fc1"]),
    ("mlp.fc2", &["output.dense"], &["mlp.fc2"]),
];

impl Scheme {
    /// The tensors that make up `parameter`, in the order of its rows.
    pub fn sources(self, parameter: &Parameter) -> Vec<Source> {
        let names = match self.layout {
            Layout::Original => vec![parameter.name.clone()],
            Layout::HfDisk | Layout::HfMemory => self.hf_names(&parameter.name),
            Layout::HfVideo => video_names(&parameter.name),
        };
        let mut shape = parameter.shape.clone();
        if let Some(rows) = shape.first_mut() {
            *rows /= names.len();
        }
        let token = match self.layout {
            Layout::HfVideo => parameter.name.strip_prefix("mask_tokens."),
            _ => None,
        };
        let row = token.and_then(|index| index.parse().ok());
        let source = |name| Source {
            name: format!("{}{name}", self.prefix),
            shape: shape.clone(),
            row,
        };
        names.into_iter().map(source).collect()
    }

    fn hf_names(self, name: &str) -> Vec<String> {
        match name {
            "pos_embed" => return vec!["embeddings.position_embeddings".into()],
            "cls_token" | "position_embeddings" => return vec![format!("embeddings.{name}")],
            _ => {}
        }
        let (module, kind) = name.rsplit_once('.').unwrap_or((name, ""));
        if module == "patch_embed.proj" {
            return vec![format!("embeddings.patch_embeddings.projection.{kind}")];
        }
        let block = module
            .strip_prefix("blocks.")
            .and_then(|rest| rest.split_once('.'));
        let row =
            block.and_then(|(layer, part)| Some((layer, BLOCK.iter().find(|row| row.0 == part)?)));
        let Some((layer, (_, disk, memory))) = row else {
            return vec![format!("layernorm.{kind}")];
        };
        let (stem, parts) = match self.layout {
            Layout::HfMemory => ("layers", memory),
            _ => ("encoder.layer", disk),
        };
        parts
            .iter()
            .map(|part| format!("{stem}.{layer}.{part}.{kind}"))
            .collect()
    }
}

/// Hugging Face's names for a parameter of V-JEPA 2.
fn video_names(name: &str) -> Vec<String> {
    let (module, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    let simple = match module {
        "mask_tokens" => Some("predictor.embeddings.mask_tokens".into()),
        "patch_embed.proj" => Some(format!("encoder.embeddings.patch_embeddings.proj.{kind}")),
        "norm" => Some(format!("encoder.layernorm.{kind}")),
        "predictor_embed" => Some(format!("predictor.embeddings.predictor_embeddings.{kind}")),
        "predictor_norm" => Some(format!("predictor.layernorm.{kind}")),
        "predictor_proj" => Some(format!("predictor.proj.{kind}")),
        "linear" => Some(format!("classifier.{kind}")),
        "pooler" => Some(format!("pooler.{kind}")),
        _ => None,
    };
    if let Some(name) = simple {
        return vec![name];
    }
    if let Some(rest) = module.strip_prefix("pooler.") {
        return probe_names(rest, kind);
    }
    let (network, rest) = match module.strip_prefix("predictor_blocks.") {
        Some(rest) => ("predictor", rest),
        None => ("encoder", module.strip_prefix("blocks.").unwrap_or(module)),
    };
    let (layer, part) = rest.split_once('.').unwrap_or((rest, ""));
    let parts: &[&str] = match part {
        "attn.qkv" => &["attention.query", "attention.key", "attention.value"],
        "attn.proj" => &["attention.proj"],
        part => &[part],
    };
    parts
        .iter()
        .map(|part| format!("{network}.layer.{layer}.{part}.{kind}"))
        .collect()
}

/// The same of an attentive probe, without its `pooler.`.
fn probe_names(module: &str, kind: &str) -> Vec<String> {
    let (layer, part, attention) = match module.strip_prefix("blocks.") {
        Some(rest) => {
            let (layer, part) = rest.split_once('.').unwrap_or((rest, ""));
            (format!("self_attention_layers.{layer}"), part, "self_attn")
        }
        None => {
            let part = module
                .strip_prefix("cross_attention_block.")
                .unwrap_or(module);
            ("cross_attention_layer".into(), part, "cross_attn")
        }
    };
    let parts: &[&str] = match part {
        "attn.qkv" => &["q_proj", "k_proj", "v_proj"],
        "attn.proj" => &["out_proj"],
        "xattn.q" => &["q_proj"],
        "xattn.kv" => &["k_proj", "v_proj"],
        _ => {
            let part = part.replace("norm", "layer_norm");
            return vec![format!("pooler.{layer}.{part}.{kind}")];
        }
    };
    parts
        .iter()
        .map(|part| format!("pooler.{layer}.{attention}.{part}.{kind}"))
        .collect()
}

/// The tensors that `parameter` of a model of `system` is written as in a Hugging Face folder, each with its shape, in the order of
/// its rows. Of a parameter that is one row of a tensor, that tensor with one row.
pub fn hugging_face(system: System, parameter: &Parameter) -> Vec<(String, Vec<usize>)> {
    let scheme = Scheme {
        layout: match system {
            System::VJepa2 => Layout::HfVideo,
            _ => Layout::HfDisk,
        },
        prefix: "",
    };
    let sources = scheme.sources(parameter).into_iter();
    let whole = |source: Source| {
        let leading = source.row.map(|_| 1);
        let shape = leading.into_iter().chain(source.shape).collect();
        (source.name, shape)
    };
    sources.map(whole).collect()
}

/// Whether a tensor of this name is of a predictor; where `config` describes one with actions, whether only such a one has it.
pub fn is_of_predictor(name: &str, config: &ModelConfig) -> bool {
    let predictor = config.predictor.as_ref();
    let of_actions = predictor.is_some_and(|predictor| predictor.actions.is_some());
    (name.starts_with("predictor.") || name.starts_with("vjepa2.predictor."))
        && (!of_actions || name.contains("action_encoder."))
}

/// Whether `name`, which is no parameter of the network that is read, is known to be of no use for it: the other networks
/// of a training checkpoint where `containers` says that it is one, heads, and the state of training.
pub(super) fn is_ignored(name: &str, containers: bool, positions: Positions) -> bool {
    const NETWORKS: [&str; 3] = ["encoder.", "target_encoder.", "ema_encoder."];
    const PREFIXES: [&str; 12] = [
        "predictor.",
        "projector.",
        "pred_proj.",
        "action_encoder.",
        "probe.",
        "vjepa2.predictor.",
        "classifier.",
        "classifiers.",
        "pooler.",
        "ijepa.pooler.",
        "opt.",
        "scaler.",
    ];
    const NAMES: [&str; 9] = [
        "mask_token",
        "embeddings.mask_token",
        "ijepa.embeddings.mask_token",
        "opt",
        "epoch",
        "loss",
        "batch_size",
        "world_size",
        "lr",
    ];
    NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        // BatchNorm counts batches, which nothing depends on.
        || name.ends_with(".num_batches_tracked")
        // V-JEPA 2 has rotary positions, and its files a table all the same.
        || positions == Positions::Rope && name.ends_with("pos_embed")
        || containers && NETWORKS.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> Parameter {
        let all = parameters(&ModelConfig::preset("vit-tiny").unwrap());
        all.into_iter()
            .find(|parameter| parameter.name == name)
            .unwrap()
    }

    fn count(parameters: &[Parameter]) -> u64 {
        parameters
            .iter()
            .map(|parameter| parameter.shape.iter().product::<usize>() as u64)
            .sum()
    }

    #[test]
    fn the_list_is_as_large_as_the_configuration_says() {
        for change in [
            r#""x""#,
            r#""qkvBias":false"#,
            r#""positions":"learned""#,
            r#""frames":4"#,
            r#""positions":"rope""#,
            r#""system":"vjepa2.1","ropeGrid":3"#,
            r#""system":"vjepa2.1","predictor":{"levels":1,"outputSize":40}"#,
            r#""system":"lewm","lewm":{"actionSize":3,"headDim":5}"#,
        ] {
            let sizes = r#""imageSize":[32,48],"patchSize":8,"hiddenSize":24,"layers":4,"heads":3"#;
            let text = format!("{{{sizes},{change}}}").replace(r#","x""#, "");
            let config = ModelConfig::from_json(&text).unwrap();
            assert_eq!(
                count(&parameters(&config)),
                config.parameter_count(),
                "{text}"
            );
            let mut predictor = predictor_parameters(&config);
            predictor.retain(|parameter| !parameter.name.contains(".running_"));
            assert_eq!(
                count(&predictor),
                config.predictor_parameter_count(),
                "{text}"
            );
        }
        assert!(parameters(&ModelConfig::preset("vit-base").unwrap())[0].optional);
    }

    #[test]
    fn queries_keys_and_values_are_the_rows_of_one_parameter() {
        let sources =
            |layout, prefix| Scheme { layout, prefix }.sources(&find("blocks.3.attn.qkv.weight"));
        let disk = sources(Layout::HfDisk, "ijepa.");
        assert_eq!(
            disk[1].name,
            "ijepa.encoder.layer.3.attention.attention.key.weight"
        );
        assert!(disk.iter().all(|source| source.shape == [192, 192]));
        assert_eq!(
            sources(Layout::HfMemory, "")[2].name,
            "layers.3.attention.v_proj.weight"
        );
        let video = sources(Layout::HfVideo, "vjepa2.");
        assert_eq!(
            video[2].name,
            "vjepa2.encoder.layer.3.attention.value.weight"
        );
        let original = sources(Layout::Original, "encoder.module.");
        assert_eq!(original[0].name, "encoder.module.blocks.3.attn.qkv.weight");
        assert_eq!(original[0].shape, [576, 192]);
    }

    #[test]
    fn every_other_parameter_has_its_published_name() {
        for (ours, disk, memory) in [
            (
                "pos_embed",
                "embeddings.position_embeddings",
                "embeddings.position_embeddings",
            ),
            (
                "patch_embed.proj.bias",
                "embeddings.patch_embeddings.projection.bias",
                "embeddings.patch_embeddings.projection.bias",
            ),
            (
                "blocks.0.norm1.weight",
                "encoder.layer.0.layernorm_before.weight",
                "layers.0.layernorm_before.weight",
            ),
            (
                "blocks.1.attn.proj.bias",
                "encoder.layer.1.attention.output.dense.bias",
                "layers.1.attention.o_proj.bias",
            ),
            (
                "blocks.2.norm2.bias",
                "encoder.layer.2.layernorm_after.bias",
                "layers.2.layernorm_after.bias",
            ),
            (
                "blocks.3.mlp.fc1.weight",
                "encoder.layer.3.intermediate.dense.weight",
                "layers.3.mlp.fc1.weight",
            ),
            (
                "blocks.11.mlp.fc2.weight",
                "encoder.layer.11.output.dense.weight",
                "layers.11.mlp.fc2.weight",
            ),
            ("norm.weight", "layernorm.weight", "layernorm.weight"),
        ] {
            let parameter = find(ours);
            for (layout, expected) in [
                (Layout::Original, ours),
                (Layout::HfDisk, disk),
                (Layout::HfMemory, memory),
            ] {
                let sources = Scheme { layout, prefix: "" }.sources(&parameter);
                assert_eq!(
                    sources,
                    [Source {
                        name: expected.into(),
                        shape: parameter.shape.clone(),
                        row: None
                    }]
                );
            }
        }
    }
}
