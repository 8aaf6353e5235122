use crate::servers::Test;

pub fn tests() -> Vec<Test> {
    Vec::new()
}
