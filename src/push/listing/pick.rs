//! Values of one kind out of a document that may hold any: the others are passed over, not refused.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What is made of a value; of one of another kind than is wanted, the default.
pub(super) trait Pick<'de>: Sized {
    type Value: Default;

    fn text(self, _: &str) -> Self::Value {
        Self::Value::default()
    }

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::Value::default())
    }

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::Value::default())
    }
}

/// Has serde read a [`Pick`].
pub(super) struct Picked<P>(pub(super) P);

impl<'de, P: Pick<'de>> DeserializeSeed<'de> for Picked<P> {
    type Value = P::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<P::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, P: Pick<'de>> Visitor<'de> for Picked<P> {
    type Value = P::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<P::Value, E> {
        Ok(P::Value::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<P::Value, E> {
        Ok(P::Value::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<P::Value, E> {
        Ok(P::Value::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<P::Value, E> {
        Ok(P::Value::default())
    }

    fn visit_unit<E>(self) -> Result<P::Value, E> {
        Ok(P::Value::default())
    }

    fn visit_str<E>(self, text: &str) -> Result<P::Value, E> {
        Ok(self.0.text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<P::Value, A::Error> {
        self.0.list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<P::Value, A::Error> {
        self.0.object(object)
    }
}

/// What a function makes of a text.
pub(super) struct TextOf<F>(pub(super) F);

impl<T, F: FnOnce(&str) -> Option<T>> Pick<'_> for TextOf<F> {
    type Value = Option<T>;

    fn text(self, text: &str) -> Option<T> {
        (self.0)(text)
    }
}
