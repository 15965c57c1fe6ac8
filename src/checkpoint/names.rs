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

use crate::config::{ModelConfig, Positions};
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
    list.positions("pos_embed", config, d);
    list.push("patch_embed.proj.weight", &config.patch_kernel());
    list.push("patch_embed.proj.bias", &[d]);
    list.blocks(
        "blocks",
        config.layers,
        d,
        config.mlp_hidden,
        config.qkv_bias,
    );
    list.affine("norm", &[d], d);
    list.0
}

/// The parameters of the predictor that `config` describes; none where it describes none.
pub fn predictor_parameters(config: &ModelConfig) -> Vec<Parameter> {
    let Some(predictor) = &config.predictor else {
        return Vec::new();
    };
    let (d, p) = (config.hidden_size, predictor.hidden_size);
    let mut list = List::default();
    list.push("mask_token", &[1, 1, p]);
    list.positions("predictor_pos_embed", config, p);
    list.affine("predictor_embed", &[p, d], p);
    list.blocks(
        "predictor_blocks",
        predictor.layers,
        p,
        predictor.mlp_hidden,
        config.qkv_bias,
    );
    list.affine("predictor_norm", &[p], p);
    list.affine("predictor_proj", &[d, p], d);
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

    fn affine(&mut self, name: &str, weight: &[usize], bias: usize) {
        self.push(&format!("{name}.weight"), weight);
        self.push(&format!("{name}.bias"), &[bias]);
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

/// A tensor of a checkpoint that is a parameter, or the next rows of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub name: String,
    pub shape: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// The original project's own names.
    Original,
    /// What transformers writes, in every version.
    HfDisk,
    /// What transformers 5 calls them in memory.
    HfMemory,
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

pub(super) const TARGET: [Scheme; 2] = [
    original("target_encoder."),
    original("target_encoder.module."),
];
pub(super) const CONTEXT: [Scheme; 2] = [original("encoder."), original("encoder.module.")];
pub(super) const SINGLE: [Scheme; 6] = [
    Scheme {
        layout: Layout::HfDisk,
        prefix: "",
    },
    Scheme {
        layout: Layout::HfDisk,
        prefix: "ijepa.",
    },
    Scheme {
        layout: Layout::HfMemory,
        prefix: "",
    },
    Scheme {
        layout: Layout::HfMemory,
        prefix: "ijepa.",
    },
    original(""),
    original("module."),
];
pub(super) const PREDICTOR: [Scheme; 2] = [original("predictor."), original("predictor.module.")];

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
        };
        let mut shape = parameter.shape.clone();
        if let Some(rows) = shape.first_mut() {
            *rows /= names.len();
        }
        let source = |name| Source {
            name: format!("{}{name}", self.prefix),
            shape: shape.clone(),
        };
        names.into_iter().map(source).collect()
    }

    fn hf_names(self, name: &str) -> Vec<String> {
        if name == "pos_embed" {
            return vec!["embeddings.position_embeddings".into()];
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

/// The tensors that `parameter` is written as in a Hugging Face folder, each with its shape, in the order of its rows.
pub fn hugging_face(parameter: &Parameter) -> Vec<(String, Vec<usize>)> {
    let scheme = Scheme {
        layout: Layout::HfDisk,
        prefix: "",
    };
    let sources = scheme.sources(parameter).into_iter();
    sources.map(|source| (source.name, source.shape)).collect()
}

/// Whether `name`, which is no parameter of the network that is read, is known to be of no use for it: the other networks
/// of a training checkpoint where `containers` says that it is one, heads, and the state of training.
pub(super) fn is_ignored(name: &str, containers: bool) -> bool {
    const NETWORKS: [&str; 2] = ["encoder.", "target_encoder."];
    const PREFIXES: [&str; 6] = [
        "predictor.",
        "classifier.",
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
            r#""positions":"rope""#,
            r#""positions":"learned","frames":4"#,
        ] {
            let sizes = r#""imageSize":[32,48],"patchSize":8,"hiddenSize":24,"layers":2,"heads":3"#;
            let text = format!("{{{sizes},{change}}}").replace(r#","x""#, "");
            let config = ModelConfig::from_json(&text).unwrap();
            assert_eq!(
                count(&parameters(&config)),
                config.parameter_count(),
                "{text}"
            );
            assert_eq!(
                count(&predictor_parameters(&config)),
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
                        shape: parameter.shape.clone()
                    }]
                );
            }
        }
    }
}
