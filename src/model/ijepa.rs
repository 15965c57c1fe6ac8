//! I-JEPA: Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture"
//! (arXiv 2301.08243), as published in facebookresearch/ijepa.
//!
//! A plain ViT without a class token: patches, plus a fixed sine-cosine table, through pre-norm blocks and a final norm.

use std::cell::RefCell;
use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::{ModelConfig, Positions};
use crate::device::{Precision, read_values};
use crate::nn::{Block, LayerNorm, Linear, Parameters, patch, positions};
use crate::{Error, Result};

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
        mut parameters: Parameters,
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
                .map(|i| Block::take(&mut parameters, &format!("blocks.{i}"), heads, eps))
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
    pub fn positions(&self, [height, width]: [usize; 2]) -> Result<Vec<f32>> {
        let [_, h, w] = self.config.grid();
        if [h, w] == [height, width] {
            return Ok(self.table.clone());
        }
        positions::interpolated(
            &self.table,
            [h, w],
            [height, width],
            self.config.hidden_size,
        )
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
