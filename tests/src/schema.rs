//! Whether a frame is what its JSON Schema says.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jsonschema::Validator;
use roost_proto::{ClientFrame, ServerFrame};
use serde_json::Value;

/// The schemas of one direction, by tag.
#[derive(Debug)]
pub struct Schemas(BTreeMap<&'static str, Validator>);

/// Of what clients say.
pub static CLIENT: LazyLock<Schemas> = LazyLock::new(|| Schemas::new(ClientFrame::schemas()));
/// Of what the server says.
pub static SERVER: LazyLock<Schemas> = LazyLock::new(|| Schemas::new(ServerFrame::schemas()));

impl Schemas {
    fn new(schemas: Vec<(&'static str, Value)>) -> Self {
        let options = jsonschema::options().should_validate_formats(true);
        let validator = |schema: Value| options.build(&schema).expect("a schema");
        Self(schemas.into_iter().map(|(tag, schema)| (tag, validator(schema))).collect())
    }

    /// # Errors
    /// Everything that is wrong with `frame`, and where.
    pub fn check(&self, frame: &Value) -> Result<(), String> {
        let tag = frame["type"].as_str().unwrap_or_default();
        let Some(validator) = self.0.get(tag) else { return Err(format!("no frame has the type '{tag}'")) };
        let wrong = validator.iter_errors(frame).map(|e| format!("{}: {e}", e.instance_path()));
        let wrong: Vec<String> = wrong.collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }
}
