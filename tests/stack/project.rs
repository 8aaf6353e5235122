//! Where the project's files are, and how YAML among them is read.

use std::path::Path;

use serde_json::Value;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The value that a YAML text stands for, merge keys applied.
pub fn yaml(text: &str) -> Result<Value, String> {
    let mut value: serde_norway::Value = serde_norway::from_str(text).map_err(|error| error.to_string())?;
    // What is merged may merge something itself.
    for _ in 0..2 {
        value.apply_merge().map_err(|error| error.to_string())?;
    }
    serde_json::to_value(value).map_err(|error| error.to_string())
}
