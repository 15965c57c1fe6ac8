//! I-JEPA: Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture"
//! (arXiv 2301.08243), as published in facebookresearch/ijepa.
//!
//! A plain ViT without a class token: patches, plus a fixed sine-cosine table, through pre-norm blocks and a final norm. The
//! predictor is a narrow ViT of the same blocks.

use std::cell::RefCell;
use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::{ModelConfig, Positions};
use crate::device::{Precision, read_values};
use crate::mask::Masks;
use crate::nn::ops::{self, Rows};
use crate::nn::{Block, LayerNorm, Linear, Parameters, patch, positions};
use crate::objective::distance::Distance;
use crate::{Error, Result};

/// Added to the variance where prediction targets are normalised, as `torch.nn.functional.layer_norm` does by default.
pub const TARGET_EPS: f64 = 1e-5;

/// The encoder of I-JEPA, context or target: they have the same form.
pub struct Encoder {
    config: ModelConfig,
    precision: Precision,
    weight_bytes: usize,
    device: Device,
    patch_embed: Linear,
    table: Vec<f32>,
    tables: RefCell<HashMap<[usize; 2], Tensor<3>>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

/// Normalised pictures of one size, planar: `[batch, channels, height, width]`.
#[derive(Clone, Debug)]
pub struct Pictures {
    /// Row-major values.
    pub pixels: Vec<f32>,
    /// Pictures in the batch.
    pub batch: usize,
    /// Height and width in pixels.
    pub size: [usize; 2],
}

impl Pictures {
    /// All of them, and all of them again: as many as `times`.
    pub fn repeated(&self, times: usize) -> Self {
        Self {
            pixels: self.pixels.repeat(times),
            batch: self.batch * times,
            size: self.size,
        }
    }
}

/// Token embeddings of a batch, on the host.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// `[batch, tokens, d]` row-major.
    pub data: Vec<f32>,
    /// `[batch, tokens, d]`.
    pub shape: [usize; 3],
}

impl Encoder {
    /// # Errors
    /// [`Error::Unsupported`] for what `config` describes that I-JEPA does not have: time, or other positions.
    pub fn check(config: &ModelConfig) -> Result<()> {
        if config.is_video() || config.positions != Positions::Sincos {
            return Err(Error::Unsupported(
                "this version runs image encoders with sine-cosine positions (I-JEPA) only".into(),
            ));
        }
        Ok(())
    }

    /// Builds the encoder from all of its parameters, under their original names.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] naming the first parameter that is not there.
    pub fn new(
        config: &ModelConfig,
        precision: Precision,
        device: &Device,
        parameters: &mut Parameters,
    ) -> Result<Self> {
        let weight_bytes = parameters.bytes();
        let [_, height, width] = config.grid();
        let heads = config.heads;
        let eps = config.layer_norm_eps;
        Ok(Self {
            patch_embed: parameters.linear("patch_embed.proj")?,
            table: parameters
                .table("pos_embed")
                .unwrap_or_else(|| positions::sincos_2d([height, width], config.hidden_size)),
            tables: RefCell::default(),
            blocks: (0..config.layers)
                .map(|i| Block::take(parameters, &format!("blocks.{i}"), heads, eps))
                .collect::<Result<_>>()?,
            norm: parameters.norm("norm", eps)?,
            config: config.clone(),
            precision,
            weight_bytes,
            device: device.clone(),
        })
    }

    /// The sizes that the encoder was built with.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How the weight matrices are kept.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes that all parameters occupy.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// The position table of a grid of patches, `[height·width, d]`: the stored one, or its bicubic interpolation.
    pub fn positions(&self, grid: [usize; 2]) -> Result<Vec<f32>> {
        let [_, h, w] = self.config.grid();
        positions::resampled(&self.table, [h, w], grid, self.config.hidden_size)
    }

    /// The patch embedding alone, before positions: `[batch, tokens, d]`.
    pub fn embed_patches(&self, pictures: &Pictures) -> Result<Tensor<3>> {
        Ok(self.patch_embed.forward(self.patches(pictures, None)?))
    }

    /// The last blocks' outputs, each after the final norm: `last` of them, the earliest first, `[batch, tokens, d]`.
    ///
    /// `tokens` gives the indices to encode for each picture, all of one length; positions are added before the other
    /// tokens are dropped. `None` encodes every token.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a size that is no multiple of the patch, [`Error::BadMask`] for unusable indices.
    pub fn forward(
        &self,
        pictures: &Pictures,
        tokens: Option<&[Vec<usize>]>,
        last: usize,
    ) -> Result<Vec<Tensor<3>>> {
        let mut outputs = Vec::with_capacity(last);
        self.walk(pictures, tokens, |depth, x| {
            if depth + last > self.blocks.len() {
                outputs.push(self.norm.forward(x.clone()));
            }
        })?;
        Ok(outputs)
    }

    /// What enters the first block, and every block's output, all before the final norm: `layers + 1` tensors
    /// `[batch, tokens, d]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn hidden_states(&self, pictures: &Pictures) -> Result<Vec<Tensor<3>>> {
        let mut states = Vec::with_capacity(self.blocks.len() + 1);
        self.walk(pictures, None, |_, x| states.push(x.clone()))?;
        Ok(states)
    }

    /// Shows `visit` the input of the first block as depth 0, and the output of block `i` (from 0) as depth `i + 1`.
    fn walk(
        &self,
        pictures: &Pictures,
        tokens: Option<&[Vec<usize>]>,
        mut visit: impl FnMut(usize, &Tensor<3>),
    ) -> Result<()> {
        let [_, height, width] = self.config.grid_for(pictures.size)?;
        if let Some(tokens) = tokens {
            check_masks(tokens, pictures.batch, height * width)?;
        }
        let patches = self.patches(pictures, tokens)?;
        let mut x = self
            .patch_embed
            .forward_onto(patches, self.position_rows([height, width], tokens)?);
        visit(0, &x);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x);
            visit(i + 1, &x);
        }
        Ok(())
    }

    /// [`forward`](Self::forward), read back to the host.
    ///
    /// # Errors
    /// Those of `forward`, and [`Error::Internal`] when the device fails.
    pub async fn encode(
        &self,
        pictures: &Pictures,
        tokens: Option<&[Vec<usize>]>,
        last: usize,
    ) -> Result<Vec<Tokens>> {
        let mut outputs = Vec::with_capacity(last);
        for x in self.forward(pictures, tokens, last)? {
            outputs.push(read(x).await?);
        }
        Ok(outputs)
    }

    fn patches(&self, pictures: &Pictures, tokens: Option<&[Vec<usize>]>) -> Result<Tensor<3>> {
        let [height, width] = pictures.size;
        let ModelConfig {
            channels,
            patch_size,
            ..
        } = self.config;
        let shape = [pictures.batch, channels, height, width];
        if pictures.pixels.len() != shape.iter().product::<usize>() || pictures.pixels.is_empty() {
            return Err(Error::BadInput(format!(
                "{} values are not {} pictures of {channels}×{height}×{width}",
                pictures.pixels.len(),
                pictures.batch
            )));
        }
        let data = patch::patches(&pictures.pixels, shape, patch_size, tokens);
        let row = channels * patch_size * patch_size;
        let count = data.len() / row / pictures.batch;
        Ok(Tensor::from_data(
            TensorData::new(data, [pictures.batch, count, row]),
            &self.device,
        ))
    }

    fn position_rows(&self, grid: [usize; 2], tokens: Option<&[Vec<usize>]>) -> Result<Tensor<3>> {
        let d = self.config.hidden_size;
        let upload = |rows: Vec<f32>, batch: usize| {
            let count = rows.len() / d / batch;
            Tensor::from_data(TensorData::new(rows, [batch, count, d]), &self.device)
        };
        if let Some(tokens) = tokens {
            return Ok(upload(
                positions::gathered(&self.positions(grid)?, d, tokens),
                tokens.len(),
            ));
        }
        if let Some(table) = self.tables.borrow().get(&grid) {
            return Ok(table.clone());
        }
        let table = upload(self.positions(grid)?, 1);
        self.tables.borrow_mut().insert(grid, table.clone());
        Ok(table)
    }
}

/// Predicts embeddings of masked tokens from those of visible ones.
pub struct Predictor {
    width: usize,
    embed: Linear,
    mask_token: Tensor<1>,
    table: Vec<f32>,
    native: [usize; 2],
    blocks: Vec<Block>,
    norm: LayerNorm,
    proj: Linear,
    device: Device,
}

impl Predictor {
    /// Builds the predictor that `config` describes from its parameters, under their original names.
    ///
    /// # Errors
    /// [`Error::BadConfig`] where `config` describes none, [`Error::MissingTensor`].
    pub fn take(
        config: &ModelConfig,
        device: &Device,
        parameters: &mut Parameters,
    ) -> Result<Self> {
        let predictor = config.predictor.as_ref().ok_or_else(|| {
            Error::BadConfig("the configuration does not describe a predictor".into())
        })?;
        let [_, height, width] = config.grid();
        let eps = config.layer_norm_eps;
        Ok(Self {
            width: predictor.hidden_size,
            embed: parameters.linear("predictor_embed")?,
            mask_token: parameters.vector("mask_token")?,
            table: parameters
                .table("predictor_pos_embed")
                .unwrap_or_else(|| positions::sincos_2d([height, width], predictor.hidden_size)),
            native: [height, width],
            blocks: (0..predictor.layers)
                .map(|i| {
                    let name = format!("predictor_blocks.{i}");
                    Block::take(parameters, &name, predictor.heads, eps)
                })
                .collect::<Result<_>>()?,
            norm: parameters.norm("predictor_norm", eps)?,
            proj: parameters.linear("predictor_proj")?,
            device: device.clone(),
        })
    }

    /// Predicts `targets[block][image]` of a grid of tokens from `context [masks·batch, n, d]`, the encoder's output at
    /// `tokens` (mask `c` of image `b` at `c·batch + b`): `[blocks·masks·batch, k, d]`, block by block.
    ///
    /// Each block is predicted by itself: a sequence is the context and the queries of one block, so that queries of
    /// different blocks never see each other.
    ///
    /// # Errors
    /// [`Error::BadMask`] for indices that do not fit the grid or each other.
    pub fn forward(
        &self,
        context: Tensor<3>,
        tokens: &[Vec<usize>],
        targets: &[Vec<Vec<usize>>],
        grid: [usize; 2],
    ) -> Result<Tensor<3>> {
        let count = grid[0] * grid[1];
        let batch = check_targets(targets, count)?;
        check_masks(tokens, context.dims()[0], count)?;
        if !tokens.len().is_multiple_of(batch) {
            return Err(Error::BadMask(format!(
                "{} context masks do not belong to {batch} pictures: give each picture as many",
                tokens.len()
            )));
        }
        let d = self.width;
        let table = positions::resampled(&self.table, self.native, grid, d)?;
        let visible = tokens[0].len();
        let rows = positions::gathered(&table, d, tokens);
        let rows = TensorData::new(rows, [tokens.len(), visible, d]);
        let context = self
            .embed
            .forward_onto(context, Tensor::from_data(rows, &self.device));

        let masked = targets[0][0].len();
        let length = visible + masked;
        let sequences: Vec<(usize, &Vec<usize>)> = targets
            .iter()
            .flat_map(|block| (0..tokens.len()).map(move |row| (row, &block[row % batch])))
            .collect();
        // The mask token follows the rows of the context.
        let mask_token = tokens.len() * visible;
        let (mut index, mut added) = (Vec::new(), Vec::new());
        for (row, target) in &sequences {
            let own = row * visible..(row + 1) * visible;
            index.push(own.chain(std::iter::repeat_n(mask_token, masked)).collect());
            added.extend(std::iter::repeat_n(0.0, visible * d));
            for &token in *target {
                added.extend_from_slice(&table[token * d..(token + 1) * d]);
            }
        }
        let index = Rows::new(&index, mask_token + 1, &self.device);
        let added = TensorData::new(added, [sequences.len() * length, d]);
        let mut x = ops::select(
            context,
            Some(self.mask_token.clone()),
            &index,
            Some(Tensor::from_data(added, &self.device)),
        );
        for block in &self.blocks {
            x = block.forward(x);
        }
        let queries: Vec<Vec<usize>> = (0..sequences.len())
            .map(|s| (s * length + visible..(s + 1) * length).collect())
            .collect();
        let queries = Rows::new(&queries, sequences.len() * length, &self.device);
        let x = ops::select(x, None, &queries, None);
        Ok(self.proj.forward(self.norm.forward(x)))
    }
}

/// What a predictor says of masked tokens, and what they are; on the host.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// The predictor's output.
    pub predicted: Vec<f32>,
    /// The target encoder's output, normalised.
    pub target: Vec<f32>,
    /// The distance of each token's prediction, `[blocks, k]`: the training loss before averaging.
    pub error: Vec<f32>,
    /// `[blocks, k, d]`, with the blocks of all pictures of one block together.
    pub shape: [usize; 3],
}

/// Predicts `masks.targets` of pictures from `masks.context`, as in training: the context encoder sees the visible tokens
/// only, and what is predicted is the target encoder's view of the whole picture.
///
/// # Errors
/// [`Error::BadInput`] for an unusable size, [`Error::BadMask`], [`Error::Internal`] when the device fails.
pub async fn predict(
    [context, target]: [&Encoder; 2],
    predictor: &Predictor,
    pictures: &Pictures,
    masks: &Masks,
) -> Result<Prediction> {
    let [_, height, width] = context.config.grid_for(pictures.size)?;
    check_targets(&masks.targets, height * width)?;
    let one = |mut outputs: Vec<Tensor<3>>| outputs.swap_remove(0);
    let seen = one(context.forward(pictures, Some(&masks.context), 1)?);
    let predicted = predictor.forward(seen, &masks.context, &masks.targets, [height, width])?;
    let every_token = one(target.forward(pictures, None, 1)?);
    let wanted = targets(every_token, &masks.targets, 1, &context.device)?;
    let distance = Distance::SmoothL1 { beta: 1.0 };
    let error = ops::distance(predicted.clone(), wanted.clone(), distance);
    let shape = predicted.dims();
    Ok(Prediction {
        predicted: read_values(predicted).await?,
        target: read_values(wanted).await?,
        error: read_values(error).await?,
        shape,
    })
}

/// What a predictor is to predict: the target encoder's output `[batch, n, d]` of every token, normalised without affine
/// parameters, at `targets[block][image]`: `[blocks·masks·batch, k, d]`, each block once for each of `masks` context masks.
///
/// # Errors
/// [`Error::BadMask`] for indices that do not fit the output or each other.
pub fn targets(
    tokens: Tensor<3>,
    targets: &[Vec<Vec<usize>>],
    masks: usize,
    device: &Device,
) -> Result<Tensor<3>> {
    let [batch, count, d] = tokens.dims();
    if check_targets(targets, count)? != batch {
        return Err(Error::BadMask(format!(
            "the masks are of {} pictures, and there are {batch}",
            targets[0].len()
        )));
    }
    let one = |value: f32| Tensor::<1>::from_data(TensorData::new(vec![value; d], [d]), device);
    let normed = ops::norm(tokens, &one(1.0), &one(0.0), TARGET_EPS);
    let index: Vec<Vec<usize>> = targets
        .iter()
        .flat_map(|block| std::iter::repeat_n(block, masks).flatten().enumerate())
        .map(|(row, mask)| mask.iter().map(|t| row % batch * count + t).collect())
        .collect();
    let rows = Rows::new(&index, batch * count, device);
    Ok(ops::select(normed, None, &rows, None))
}

/// Reads a tensor back to the host.
///
/// # Errors
/// [`Error::Internal`] when the device fails.
pub async fn read(x: Tensor<3>) -> Result<Tokens> {
    let shape = x.dims();
    Ok(Tokens {
        data: read_values(x).await?,
        shape,
    })
}

/// Checks masks `[block][image]` of a grid of `count` tokens; gives the number of images.
fn check_targets(targets: &[Vec<Vec<usize>>], count: usize) -> Result<usize> {
    let Some(first) = targets.first() else {
        return Err(Error::BadMask(
            "there is no target block; give at least one".into(),
        ));
    };
    if first.is_empty() {
        return Err(Error::BadMask("the target blocks are of no picture".into()));
    }
    let all: Vec<Vec<usize>> = targets.iter().flatten().cloned().collect();
    check_masks(&all, first.len() * targets.len(), count)?;
    match targets.iter().find(|block| block.len() != first.len()) {
        None => Ok(first.len()),
        Some(block) => Err(Error::BadMask(format!(
            "a target block is of {} pictures and another of {}",
            first.len(),
            block.len()
        ))),
    }
}

fn check_masks(tokens: &[Vec<usize>], batch: usize, count: usize) -> Result<()> {
    let bad = |why: String| Err(Error::BadMask(why));
    if tokens.len() != batch {
        return bad(format!(
            "{} masks were given for {batch} pictures; give one for each",
            tokens.len()
        ));
    }
    for (b, mask) in tokens.iter().enumerate() {
        if mask.is_empty() {
            return bad(format!("the mask of picture {b} is empty"));
        }
        if mask.len() != tokens[0].len() {
            return bad(format!(
                "the mask of picture {b} has {} tokens and that of picture 0 has {}; all must have the same length",
                mask.len(),
                tokens[0].len()
            ));
        }
        if let Some(index) = mask.iter().find(|&&t| t >= count) {
            return bad(format!(
                "token {index} of picture {b} is outside the grid of {count} tokens"
            ));
        }
    }
    Ok(())
}
