//! Fresh weights, as the published constructors make them.

use super::network::HostTensor;
use crate::checkpoint::Parameter;
use crate::config::ModelConfig;
use crate::nn::positions;
use crate::rng::{Generator, Stream};

/// Standard deviation of every fresh matrix, convolution and mask token. The published truncation lies at ±2, a hundred
/// deviations away, and is left out.
pub const STD: f32 = 0.02;
/// Standard deviation of V-JEPA 2.1's fresh tokens of modality.
const MODALITY_STD: f32 = 1e-6;

/// The parameters of `list`: matrices, convolutions and tokens from N(0, 0.02²), biases 0, gains of norms 1, position tables
/// computed for `config`'s grid.
///
/// With `depth_rescale` the two projections that end block `i` (`attn.proj` and `mlp.fc2`, `i` from 0) are divided by
/// `√(2·(i + 1))`: V-JEPA 2 and later train so, while I-JEPA's and V-JEPA's `init_model` overwrite it.
pub fn fresh(
    list: &[Parameter],
    config: &ModelConfig,
    depth_rescale: bool,
    seed: u64,
    network: &str,
) -> Vec<HostTensor> {
    let mut random = Stream::new(seed, network, 0);
    let tensor = |Parameter { name, shape, .. }: &Parameter| {
        let count = shape.iter().product();
        let data = if name.ends_with("pos_embed") {
            positions::fixed(config, shape[shape.len() - 1])
        } else if shape.len() == 1 {
            vec![if name.ends_with("weight") { 1.0 } else { 0.0 }; count]
        } else {
            let mut data = vec![0.0; count];
            random.fill_normal(&mut data);
            let std = match name {
                // V-JEPA's mask tokens begin at zero, and 2.1's tokens of modality so close to it.
                _ if name.starts_with("mask_tokens.") => 0.0,
                _ if name.ends_with("_mod_embed") => MODALITY_STD,
                _ => std_of(name, depth_rescale),
            };
            data.iter_mut().for_each(|v| *v *= std);
            data
        };
        HostTensor {
            name: name.clone(),
            shape: shape.clone(),
            data,
        }
    };
    list.iter().map(tensor).collect()
}

/// The deviation of a matrix or of I-JEPA's mask token.
fn std_of(name: &str, depth_rescale: bool) -> f32 {
    match block_of_last_projection(name) {
        Some(block) if depth_rescale => STD / (2.0 * (block + 1) as f32).sqrt(),
        _ => STD,
    }
}

/// The parameters of a head, or of what LeWorldModel has beside its encoder, as PyTorch's own layers start: weights and biases of a linear
/// layer uniform within `±1/√d_in`, norms as the identity. LeWorldModel's modulation of its blocks starts at zero (AdaLN-zero), its
/// positions as standard normals. `list` has each layer's weight before its bias.
pub fn fresh_head(list: &[Parameter], seed: u64) -> Vec<HostTensor> {
    let mut random = Stream::new(seed, "projector", 0);
    let mut bound = 0.0;
    let tensor = |Parameter { name, shape, .. }: &Parameter| {
        let count = shape.iter().product();
        let is_norm = shape.len() == 1 && name.ends_with("weight");
        if is_norm || name.contains(".adaLN_modulation.") {
            bound = 0.0;
        } else if let [_, d_in] | [_, d_in, 1] = **shape {
            bound = (d_in as f32).sqrt().recip();
        }
        let data = if is_norm || name.ends_with(".running_var") {
            vec![1.0; count]
        } else if name.ends_with(".pos_embedding") {
            let mut data = vec![0.0; count];
            random.fill_normal(&mut data);
            data
        } else {
            (0..count)
                .map(|_| bound * (2.0 * random.uniform() - 1.0))
                .collect()
        };
        HostTensor {
            name: name.clone(),
            shape: shape.clone(),
            data,
        }
    };
    list.iter().map(tensor).collect()
}

/// The parameters of an attentive probe, as the original projects' constructors make them: as [`fresh`] without rescaling, but the
/// two projections that end self-attention block `i` (from 0) are divided by `√(2·(i + 2))`, the last of the query's block, which comes
/// after them, by `√2`, and the linear layer starts as PyTorch's. `list` ends with that layer's weight and bias.
pub fn fresh_probe(list: &[Parameter], seed: u64) -> Vec<HostTensor> {
    let (pooler, linear) = list.split_at(list.len() - 2);
    let mut random = Stream::new(seed, "probe", 0);
    let tensor = |Parameter { name, shape, .. }: &Parameter| {
        let mut data = vec![0.0; shape.iter().product()];
        if shape.len() > 1 {
            random.fill_normal(&mut data);
            let layers = match block_of_last_projection(name) {
                Some(block) => Some(block + 2),
                None => name.ends_with("mlp.fc2.weight").then_some(1),
            };
            let std = layers.map_or(STD, |layers| STD / (2.0 * layers as f32).sqrt());
            data.iter_mut().for_each(|v| *v *= std);
        } else if name.ends_with("weight") {
            data.fill(1.0);
        }
        HostTensor {
            name: name.clone(),
            shape: shape.clone(),
            data,
        }
    };
    let pooler: Vec<HostTensor> = pooler.iter().map(tensor).collect();
    pooler.into_iter().chain(fresh_head(linear, seed)).collect()
}

/// The number in `…blocks.{i}.attn.proj.weight` and `…blocks.{i}.mlp.fc2.weight`.
fn block_of_last_projection(name: &str) -> Option<usize> {
    let rest = name.split_once("blocks.")?.1;
    let (number, rest) = rest.split_once('.')?;
    matches!(rest, "attn.proj.weight" | "mlp.fc2.weight").then_some(())?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{STD, block_of_last_projection, fresh, fresh_head, fresh_probe};
    use crate::checkpoint::{parameters, predictor_parameters, probe_parameters};
    use crate::config::ModelConfig;

    fn deviation(data: &[f32]) -> f32 {
        (data.iter().map(|v| v * v).sum::<f32>() / data.len() as f32).sqrt()
    }

    #[test]
    fn deviations_are_the_published_ones() {
        let config = ModelConfig::preset("vit-tiny").unwrap();
        for depth_rescale in [false, true] {
            for tensor in fresh(&parameters(&config), &config, depth_rescale, 1, "encoder") {
                let expected = match block_of_last_projection(&tensor.name) {
                    Some(block) if depth_rescale => STD / (2.0 * (block as f32 + 1.0)).sqrt(),
                    _ => STD,
                };
                if tensor.shape.len() > 1 && !tensor.name.ends_with("pos_embed") {
                    let off = deviation(&tensor.data) / expected - 1.0;
                    // Five deviations of the estimate.
                    let sampling = 5.0 / (2.0 * tensor.data.len() as f32).sqrt();
                    assert!(off.abs() < sampling, "{}: {off}", tensor.name);
                }
            }
        }
    }

    #[test]
    fn heads_start_as_pytorchs_layers() {
        let list = crate::train::projector::parameters(48, Default::default());
        let (mut d_in, mut after_linear) = (0, false);
        for tensor in fresh_head(&list, 1) {
            if let [_, width] = *tensor.shape {
                (d_in, after_linear) = (width, true);
            } else if tensor.name.ends_with("weight") {
                after_linear = false;
                assert!(tensor.data.iter().all(|&v| v == 1.0));
                continue;
            }
            // A uniform distribution's deviation is its bound over √3.
            let expected = if after_linear {
                (3.0 * d_in as f32).sqrt().recip()
            } else {
                0.0
            };
            let off = (deviation(&tensor.data) - expected).abs();
            let sampling = 5.0 * expected / (tensor.data.len() as f32).sqrt();
            assert!(off <= sampling, "{}: {off}", tensor.name);
        }
    }

    #[test]
    fn probes_start_as_published() {
        let list = probe_parameters([96, 4, 384, 7]);
        for tensor in fresh_probe(&list, 1) {
            let name = tensor.name.as_str();
            let expected = match name {
                "pooler.blocks.0.attn.proj.weight" | "pooler.blocks.0.mlp.fc2.weight" => STD / 2.0,
                "pooler.blocks.2.attn.proj.weight" | "pooler.blocks.2.mlp.fc2.weight" => {
                    STD / 8f32.sqrt()
                }
                "pooler.blocks.1.attn.proj.weight" | "pooler.blocks.1.mlp.fc2.weight" => {
                    STD / 6f32.sqrt()
                }
                "pooler.cross_attention_block.mlp.fc2.weight" => STD / 2f32.sqrt(),
                "linear.weight" | "linear.bias" => (3f32 * 96.0).sqrt().recip(),
                _ if tensor.shape.len() > 1 => STD,
                _ if name.ends_with("weight") => 1.0,
                _ => 0.0,
            };
            let off = (deviation(&tensor.data) - expected).abs();
            let sampling = 5.0 * expected / (2.0 * tensor.data.len() as f32).sqrt();
            assert!(off <= sampling, "{name}: {off}");
        }
    }

    #[test]
    fn le_world_model_starts_as_published() {
        let list = predictor_parameters(&ModelConfig::preset("lewm").unwrap());
        for tensor in fresh_head(&list, 1) {
            let name = &tensor.name;
            let all = |value: f32| tensor.data.iter().all(|&v| v == value);
            let spread = deviation(&tensor.data);
            let is_norm = tensor.shape.len() == 1 && name.ends_with("weight");
            if is_norm || name.ends_with("running_var") {
                assert!(all(1.0), "{name}");
            } else if ["adaLN_modulation", "running_mean"]
                .iter()
                .any(|p| name.contains(p))
            {
                assert!(all(0.0), "{name}");
            } else if name.ends_with("pos_embedding") {
                // Five standard deviations of the deviation of 576 normals: 5/√(2·576).
                assert!((spread - 1.0).abs() < 0.15, "{spread}");
            } else if let [_, d_in] | [_, d_in, 1] = *tensor.shape {
                let expected = (3.0 * d_in as f32).sqrt().recip();
                let sampling = 5.0 * expected / (tensor.data.len() as f32).sqrt();
                assert!((spread - expected).abs() <= sampling, "{name}: {spread}");
            }
        }
    }

    #[test]
    fn norms_start_as_the_identity_and_seeds_differ() {
        let config = ModelConfig::preset("vit-tiny").unwrap();
        let list = predictor_parameters(&config);
        let of = |seed| fresh(&list, &config, false, seed, "predictor");
        let (one, two) = (of(1), of(2));
        assert_eq!(one, of(1));
        for (a, b) in one.iter().zip(&two) {
            match a.name.rsplit('.').next() {
                Some("bias") => assert!(a.data.iter().all(|&v| v == 0.0)),
                _ if a.name.contains("norm") => assert!(a.data.iter().all(|&v| v == 1.0)),
                _ if a.name.ends_with("pos_embed") => assert_eq!(a, b),
                _ => assert_ne!(a.data, b.data, "{}", a.name),
            }
        }
    }
}
