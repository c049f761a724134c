//! A session together with its input and output buffers.

use ndarray::ArrayViewD;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::value::{DynValue, Tensor, TensorRef};

use super::gpu_permits::Permit;

/// One session and the memory of its batches and results.
pub(super) struct Lane {
    session: Session,
    /// On a GPU: page-locked host memory, so that the GPU copies by DMA. Elsewhere, the session reads
    /// the caller's memory and returns its own.
    bound: Option<MemoryInfo<'static>>,
    /// Permit for GPU memory, released after the session is dropped.
    _permit: Option<Permit>,
}

impl Lane {
    /// Creates a lane that reads batches in place.
    pub fn of(session: Session) -> Self {
        Self { session, bound: None, _permit: None }
    }

    /// Creates a lane on `device` with batches and results in pinned memory. If ONNX Runtime has no
    /// pinned memory, a warning is logged and it copies through its own buffers.
    pub fn pinned(session: Session, device: i32) -> Self {
        let info = MemoryInfo::new(
            AllocationDevice::CUDA_PINNED,
            device,
            AllocatorType::Device,
            MemoryType::CPUOutput,
        );
        match info.and_then(|info| Self::bound_to(&session, info)) {
            Ok(info) => Self { session, bound: Some(info), _permit: None },
            Err(e) => {
                tracing::warn!(error = %e, device, "no pinned memory; copies go through pages");
                Self::of(session)
            }
        }
    }

    /// Holds the permit for the lifetime of the session.
    pub fn with(mut self, permit: Option<Permit>) -> Self {
        self._permit = permit;
        self
    }

    /// Returns `info`, if `session` can allocate such memory and this process can read it.
    fn bound_to(session: &Session, info: MemoryInfo<'static>) -> ort::Result<MemoryInfo<'static>> {
        if !info.is_cpu_accessible() {
            return Err(ort::Error::new("this memory cannot be read by the CPU"));
        }
        drop(Tensor::<f32>::new(&Allocator::new(session, info.clone())?, [1_usize])?);
        Ok(info)
    }

    /// Returns the session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Whether batches and results lie in pinned memory.
    pub fn is_bound(&self) -> bool {
        self.bound.is_some()
    }

    /// Runs `batch` (standard layout) as `input` and returns `output`, if the network has it. The
    /// session is free when this returns: the result owns its memory.
    pub fn run(
        &mut self,
        input: &str,
        batch: ArrayViewD<f32>,
        output: &str,
    ) -> ort::Result<Option<DynValue>> {
        let Some(info) = &self.bound else {
            let batch = TensorRef::from_array_view(batch)?;
            return Ok(self.session.run(ort::inputs![input => batch])?.remove(output));
        };
        // The session's arena reuses the same block for the next batch.
        let allocator = Allocator::new(&self.session, info.clone())?;
        let mut tensor = Tensor::<f32>::new(&allocator, batch.shape().to_vec())?;
        tensor.try_extract_array_mut::<f32>()?.assign(&batch);
        let mut binding = self.session.create_binding()?;
        binding.bind_input(input, &tensor)?;
        binding.bind_output_to_device(output, info)?;
        let mut results = self.session.run_binding(&binding)?;
        // Copies to pinned memory are asynchronous; wait before anyone reads.
        binding.synchronize_outputs()?;
        Ok(results.remove(output))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayD;

    use super::*;
    use crate::inference::provider::ProviderChoice;
    use crate::inference::runtime::runtime;

    /// A network that adds 1, as ONNX protobuf bytes: `ir_version` 8, operator set 13, `y = x + one`
    /// with x and y f32 of shape (n, 1, 2, 2, 2).
    fn add_one() -> Vec<u8> {
        fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
            [&[number << 3 | 2, bytes.len() as u8][..], bytes].concat()
        }
        fn value(name: &str) -> Vec<u8> {
            let mut dims = field(1, &field(2, b"n"));
            for size in [1_u8, 2, 2, 2] {
                dims.extend(field(1, &[8, size]));
            }
            let tensor = [&[8, 1][..], &field(2, &dims)].concat();
            [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
        }
        // TensorProto: data_type FLOAT, float_data packed in field 4, name in field 8, no dimensions.
        let one = [&[16, 1][..], &field(4, &1.0_f32.to_le_bytes()), &field(8, b"one")].concat();
        let node = [field(1, b"x"), field(1, b"one"), field(2, b"y"), field(4, b"Add")].concat();
        let graph = [
            field(1, &node),
            field(2, b"g"),
            field(5, &one),
            field(11, &value("x")),
            field(12, &value("y")),
        ]
        .concat();
        [&[8, 8][..], &field(7, &graph), &field(8, &[16, 13])].concat()
    }

    fn session() -> Session {
        let environment = &runtime(ProviderChoice::Cpu).unwrap().environment;
        Session::builder(environment).unwrap().commit_from_memory(&add_one()).unwrap()
    }

    #[test]
    fn bound_runs_give_what_plain_ones_do_and_results_outlive_the_next_run() {
        if let Err(e) = runtime(ProviderChoice::Cpu) {
            eprintln!("skipped: {e}");
            return;
        }
        let info =
            MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)
                .unwrap();
        let mut plain = Lane::of(session());
        let session = session();
        let info = Lane::bound_to(&session, info).unwrap();
        let mut bound = Lane { session, bound: Some(info), _permit: None };
        assert!(bound.is_bound() && !plain.is_bound());
        let batch = |n: usize| {
            let value = |i: ndarray::IxDyn| (i[0] * 100 + i[2] * 4 + i[3] * 2 + i[4]) as f32;
            ArrayD::from_shape_fn(vec![n, 1, 2, 2, 2], value)
        };
        let mut kept = Vec::new();
        for n in [3, 1, 3] {
            let batch = batch(n) + n as f32;
            let results = [&mut plain, &mut bound]
                .map(|lane| lane.run("x", batch.view(), "y").unwrap().unwrap());
            for result in results {
                kept.push((&batch + 1.0, result));
            }
        }
        drop((plain, bound));
        for (expected, result) in &kept {
            assert_eq!(result.try_extract_array::<f32>().unwrap(), expected.view());
        }
    }

    #[test]
    fn memory_that_is_not_there_is_not_used() {
        if let Err(e) = runtime(ProviderChoice::Cpu) {
            eprintln!("skipped: {e}");
            return;
        }
        // The session has no provider with pinned memory.
        let mut lane = Lane::pinned(session(), 0);
        assert!(!lane.is_bound());
        let batch = ArrayD::zeros(vec![1, 1, 2, 2, 2]);
        let result = lane.run("x", batch.view(), "y").unwrap().unwrap();
        assert_eq!(result.try_extract_array::<f32>().unwrap().sum(), 8.0);
        assert!(lane.run("x", batch.view(), "z").unwrap().is_none());
    }
}
