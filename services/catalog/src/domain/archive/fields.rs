//! Little-endian numbers at places that were looked at before.

/// A run of bytes with numbers in it. A place outside of it is 0: lengths are checked before, once for each header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    pub(super) fn length(&self, at: usize) -> usize {
        usize::from(self.u16(at))
    }
}

/// The extra fields of a header: id and value of each. `None` if they do not fit together.
pub(super) fn extras(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut found = Vec::new();
    // Fewer than four bytes are padding, which tools for alignment leave.
    while bytes.len() >= 4 {
        let fields = Fields(bytes);
        let value = bytes.get(4..4 + fields.length(2))?;
        found.push((fields.u16(0), value));
        bytes = &bytes[4 + value.len()..];
    }
    Some(found)
}
