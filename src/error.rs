//! The one error of the crate. Its [`code`](Error::code)s are the `JepaError` codes of the TypeScript side.

/// What went wrong, as a sentence that says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model configuration that is malformed, contradictory or out of bounds.
    #[error("{0}")]
    BadConfig(String),
    /// Bytes that are not a readable checkpoint, or hold values that cannot be weights.
    #[error("{0}")]
    BadCheckpoint(String),
    /// A well-formed checkpoint that lacks tensors that the model needs; every missing name is in the message.
    #[error("{0}")]
    MissingTensor(String),
    /// A tensor whose shape is not the one that the configuration asks for.
    #[error("{0}")]
    ShapeMismatch(String),
    /// A valid request that this build or this device cannot serve.
    #[error("{0}")]
    Unsupported(String),
    /// A picture, clip or argument that cannot be used.
    #[error("{0}")]
    BadInput(String),
    /// Token indices that are out of range, empty or contradictory.
    #[error("{0}")]
    BadMask(String),
    /// WebGPU is absent or the adapter lacks what is needed.
    #[error("{0}")]
    NoWebGpu(String),
    /// An allocation that does not fit.
    #[error("{0}")]
    OutOfMemory(String),
    /// A defect of this library or of a layer below it.
    #[error("{0}")]
    Internal(String),
}

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The stable code of this error, as in the table of the README.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadConfig(_) => "bad-config",
            Self::BadCheckpoint(_) => "bad-checkpoint",
            Self::MissingTensor(_) => "missing-tensor",
            Self::ShapeMismatch(_) => "shape-mismatch",
            Self::Unsupported(_) => "unsupported",
            Self::BadInput(_) => "bad-input",
            Self::BadMask(_) => "bad-mask",
            Self::NoWebGpu(_) => "no-webgpu",
            Self::OutOfMemory(_) => "out-of-memory",
            Self::Internal(_) => "internal",
        }
    }
}
