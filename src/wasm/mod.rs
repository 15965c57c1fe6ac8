//! What the TypeScript side calls. Thin: types go in and out, errors become JavaScript errors with a `code`.
//!
//! A build with a backend exports the models, the one without exports what needs no tensors.

#[cfg(not(feature = "tensor"))]
mod actions;
#[cfg(feature = "tensor")]
mod attentive;
#[cfg(not(feature = "tensor"))]
mod environments;
#[cfg(not(feature = "tensor"))]
mod masks;
#[cfg(feature = "tensor")]
mod model;
#[cfg(not(feature = "tensor"))]
mod probes;
#[cfg(feature = "tensor")]
mod recordings;
#[cfg(not(feature = "tensor"))]
mod search;
#[cfg(feature = "threads")]
mod threads;
#[cfg(feature = "tensor")]
mod trainer;
#[cfg(feature = "tensor")]
mod world;

use js_sys::{Error as JsError, Reflect};
use serde::Deserialize;
#[cfg(feature = "tensor")]
use serde::Serialize;
use wasm_bindgen::prelude::*;

use crate::{Error, Result};

unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// Runs once when the module is instantiated.
#[wasm_bindgen(start)]
fn start() {
    // Calling the static constructors here, once, keeps wasm-ld from wrapping every exported function in a call of all
    // of them: cubecl registers hundreds, and each call into the module then cost more than a forward pass.
    // SAFETY: the linker defines the symbol; nothing has run before this function.
    unsafe { __wasm_call_ctors() };
    console_error_panic_hook::set_once();
}

impl From<Error> for JsValue {
    fn from(error: Error) -> Self {
        let js = JsError::new(&error.to_string());
        let _ = Reflect::set(&js, &"code".into(), &error.code().into());
        js.into()
    }
}

#[cfg(feature = "tensor")]
fn to_js(value: &impl Serialize) -> Result<JsValue> {
    value
        .serialize(&serde_wasm_bindgen::Serializer::json_compatible())
        .map_err(|e| Error::Internal(format!("a value cannot be given to JavaScript: {e}")))
}

fn from_js<T: for<'a> Deserialize<'a>>(value: JsValue) -> Result<T> {
    serde_wasm_bindgen::from_value(value)
        .map_err(|e| Error::BadInput(format!("an option cannot be read: {e}")))
}
