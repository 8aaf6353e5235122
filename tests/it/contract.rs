//! One table behind routing, metrics and OpenAPI: they agree, and so do the live answers.
