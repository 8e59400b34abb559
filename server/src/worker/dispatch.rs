//! From a frame to the code that runs it.

use super::flight::Place;
use super::session::{Fatal, Session};
use super::state::State;
use super::{api, callbacks::Ticket};
use crate::driver::Result;
use crate::stats::count;
use pxos_protocol::api::{Class, ROWS, op};
use pxos_protocol::codec::{DecodeError, Plain, Reader, Writer};
use pxos_protocol::for_each_driver_fn;
use pxos_protocol::frame::{Header, control};
use pxos_protocol::param::{Dev, In, Out, Param};
use pxos_protocol::types::{CUarray_format, CUdevice_P2PAttribute, CUresult};
use std::ffi::{c_int, c_uint};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What is left of a call that blocks, to be run outside the leader's turn; writes the answer's payload.
pub(super) type Later = Box<dyn FnOnce(&Session, &mut Vec<u8>) -> Result + Send>;

/// How a call ended its turn.
pub(super) enum Outcome {
    /// It is over; the answer's payload is in the state.
    Done(Result),
    /// It blocks.
    Later(Later),
}

/// Why a call did not get through.
#[derive(Debug)]
pub(super) enum Failed {
    /// The call answers this.
    Call(CUresult),
    /// The session ends.
    Session(Fatal),
}

impl From<CUresult> for Failed {
    fn from(result: CUresult) -> Self {
        Self::Call(result)
    }
}

impl From<DecodeError> for Failed {
    fn from(error: DecodeError) -> Self {
        Self::Session(error.into())
    }
}

/// What a hand-written row answers.
pub(super) type Answer = std::result::Result<Outcome, Failed>;

/// A call in its turn.
pub(super) struct Call<'a> {
    /// The session.
    pub(super) session: &'a Arc<Session>,
    /// The leader's state.
    pub(super) state: &'a mut State,
    /// The frame.
    pub(super) header: &'a Header,
    /// Its payload.
    pub(super) fields: Reader<'a>,
}

impl<'a> Call<'a> {
    /// The next field.
    pub(super) fn get<T: Plain>(&mut self) -> std::result::Result<T, Failed> {
        Ok(self.fields.get()?)
    }

    /// The next field, a length.
    pub(super) fn get_usize(&mut self) -> std::result::Result<usize, Failed> {
        usize::try_from(self.fields.get::<u64>()?).map_err(|_| Failed::Call(CUresult::ERROR_INVALID_VALUE))
    }

    /// The next field, a stream; the driver's handle for it.
    pub(super) fn get_stream(&mut self) -> std::result::Result<u64, Failed> {
        let raw = self.fields.get()?;
        let stream = self.state.stream(self.session, raw, self.header.thread, self.header.context)?;
        self.state.fences.pass(self.session, stream);
        Ok(stream)
    }

    /// Where a command in `stream` goes.
    pub(super) fn place(&self, stream: u64) -> Place {
        Place { device: self.state.device, context: Session::current(), stream }
    }

    /// The driver.
    pub(super) fn driver(&self) -> &'a crate::driver::Driver {
        &self.session.driver
    }

    /// Where the answer's payload goes.
    pub(super) fn reply(&mut self) -> Writer<'_> {
        Writer::new(&mut self.state.reply)
    }
}

/// The end of a call that is over.
pub(super) const fn done() -> Answer {
    Ok(Outcome::Done(Ok(())))
}

/// Whether a call waits for the device: it also answers errors of calls that nobody waited for, and brings output.
pub(super) fn synchronises(number: u16) -> bool {
    matches!(
        number,
        op::cuCtxSynchronize
            | op::cuStreamSynchronize
            | op::cuEventSynchronize
            | op::cuMemcpyDtoHAsync_v2
            | op::cuMemcpy3DAsync_v2
            | op::cuMemcpy3DPeerAsync
            | op::cuStreamQuery
            | op::cuEventQuery
            | control::PING
            | control::STAGE_WAIT
            | control::COPY
            | control::SUBMIT_PRIMITIVE
            | control::QUERY_STATUS
    )
}

/// The guest's word that a host function has returned.
pub(super) fn callback_done(session: &Session, payload: &[u8]) -> std::result::Result<(), Fatal> {
    let number = Reader::new(payload).get().map_err(|error| Fatal::Malformed(error.to_string()))?;
    session.callbacks.done(number);
    Ok(())
}

/// Runs one frame.
pub(super) fn run(
    session: &Arc<Session>,
    state: &mut State,
    header: &Header,
    payload: &[u8],
) -> std::result::Result<Outcome, Fatal> {
    if header.thread > state.threads {
        state.threads = header.thread;
        session.stats.threads.store(header.thread.into(), Ordering::Relaxed);
    }
    match answer(&mut Call { session, state, header, fields: Reader::new(payload) }) {
        Ok(outcome) => Ok(outcome),
        Err(Failed::Call(result)) => Ok(Outcome::Done(Err(result))),
        Err(Failed::Session(fatal)) => Err(fatal),
    }
}

fn answer(call: &mut Call<'_>) -> Answer {
    // By far the most frequent call comes first.
    if call.header.op == op::cuLaunchKernel {
        call.state.enter(call.session, call.header.context)?;
        return api::launch::kernel(call);
    }
    match call.header.op {
        control::IMAGE => {
            call.state.images.receive(call.fields.rest()).map_err(Failed::Session)?;
            return done();
        }
        control::CALLBACK_DONE => {
            callback_done(call.session, call.fields.rest()).map_err(Failed::Session)?;
            return done();
        }
        control::PING => return done(),
        control::MIRROR_WRITE => {
            api::graph::write(call.session, Reader::new(call.fields.rest()))?;
            return done();
        }
        control::SYSTEM_ATOMICS => return api::module::system_atomics(call),
        op::cuDevicePrimaryCtxRetain => return api::context::retain(call),
        op::cuDevicePrimaryCtxRelease_v2 | op::cuDevicePrimaryCtxReset_v2 => {
            return api::context::reset(call);
        }
        op::cuCtxCreate_v2 => return api::context::create(call),
        op::cuCtxDestroy_v2 => return api::context::destroy(call),
        op::cuGreenCtxDestroy => return api::green::destroy(call),
        _ => {}
    }
    match call.header.op {
        op::cuLibraryLoadData
        | op::cuLibraryGetKernel
        | op::cuLibraryEnumerateKernels
        | op::cuLibraryUnload => {
            call.state.enter_any(call.session, call.header.context)?;
        }
        _ => call.state.enter(call.session, call.header.context)?,
    }
    match call.header.op {
        op::cuCtxSynchronize => api::context::synchronise(),
        op::cuCtxGetLimit => api::context::limit(call),
        op::cuCtxSetLimit => api::context::set_limit(call),
        op::cuModuleLoadData => api::module::load(call),
        op::cuModuleUnload => api::module::unload(call),
        op::cuModuleGetFunction => api::module::function(call),
        op::cuModuleEnumerateFunctions => api::module::enumerate(call),
        op::cuModuleGetGlobal_v2 => api::module::global(call),
        op::cuLibraryLoadData => api::library::load(call),
        op::cuLibraryUnload => api::library::unload(call),
        op::cuLibraryGetKernel => api::library::kernel(call),
        op::cuLibraryEnumerateKernels => api::library::enumerate(call),
        op::cuLibraryGetModule => api::library::module(call),
        op::cuLibraryGetGlobal => api::library::global(call),
        op::cuLibraryGetManaged => api::library::managed(call),
        op::cuFuncSetAttribute => api::launch::set_attribute(call),
        op::cuLaunchHostFunc => host_function(call),
        op::cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags => api::launch::occupancy(call),
        op::cuOccupancyAvailableDynamicSMemPerBlock => api::launch::available_shared(call),
        op::cuOccupancyMaxPotentialClusterSize | op::cuOccupancyMaxActiveClusters => {
            api::launch::clusters(call)
        }
        op::cuMemGetInfo_v2 => api::memory::info(call),
        op::cuMemAlloc_v2 => api::memory::allocate(call),
        op::cuMemAllocPitch_v2 => api::memory::allocate_pitch(call),
        op::cuMemFree_v2 => api::memory::free(call),
        op::cuMemcpyHtoDAsync_v2 => api::memory::to_device(call),
        op::cuMemcpyDtoHAsync_v2 => api::memory::to_host(call),
        control::STAGE_WRITE | control::STAGE_READ => api::shared::stage(call),
        control::STAGE_WAIT => api::shared::wait(call),
        control::COPY => api::shared::copy(call),
        control::FENCE => api::stream::fence(call),
        control::COMPILE_PRIMITIVE => api::primitive::compile(call),
        control::SUBMIT_PRIMITIVE => api::primitive::run(call),
        control::ALLOC_MEMORY => api::memory::allocate(call),
        control::FREE_MEMORY => api::memory::free(call),
        control::QUERY_STATUS => api::primitive::status(call),
        op::cuMemHostAlloc => api::shared::pin(call),
        op::cuMemFreeHost => api::shared::unpin(call),
        op::cuMemcpyDtoDAsync_v2 => api::memory::device_to_device(call),
        op::cuMemsetD2D32Async => api::memory::fill(call),
        op::cuMemcpy3DAsync_v2 | op::cuMemcpy3DPeerAsync => api::copy2d::copy(call),
        op::cuArray3DCreate_v2 | op::cuMipmappedArrayCreate => api::array::create(call),
        op::cuArrayDestroy => api::array::destroy(call),
        op::cuMipmappedArrayDestroy => api::array::destroy_mipmapped(call),
        op::cuMipmappedArrayGetLevel | op::cuArrayGetPlane => api::array::part(call),
        op::cuArrayGetMemoryRequirements | op::cuMipmappedArrayGetMemoryRequirements => {
            api::array::requirements(call)
        }
        op::cuArrayGetSparseProperties | op::cuMipmappedArrayGetSparseProperties => api::array::sparse(call),
        op::cuTexObjectCreate => api::texture::create(call),
        op::cuTexObjectDestroy => api::texture::destroy(call),
        op::cuSurfObjectCreate => api::texture::create_surface(call),
        op::cuSurfObjectDestroy => api::texture::destroy_surface(call),
        op::cuTensorMapEncodeTiled | op::cuTensorMapEncodeIm2col | op::cuTensorMapEncodeIm2colWide => {
            api::texture::encode(call)
        }
        op::cuTensorMapReplaceAddress => api::texture::replace_address(call),
        op::cuModuleGetTexRef | op::cuModuleGetSurfRef => api::texture_reference::find(call),
        op::cuTexRefCreate => api::texture_reference::create(call),
        op::cuTexRefDestroy => api::texture_reference::destroy(call),
        op::cuTexRefSetArray
        | op::cuTexRefSetMipmappedArray
        | op::cuTexRefSetAddress_v2
        | op::cuTexRefSetAddress2D_v3..=op::cuTexRefSetFlags
        | op::cuSurfRefSetArray => api::texture_reference::set(call),
        op::cuTexRefGetAddress_v2..=op::cuTexRefGetFlags | op::cuSurfRefGetArray => {
            api::texture_reference::query(call)
        }
        op::cuPointerSetAttribute => api::memory::set_attribute(call),
        op::cuStreamCreateWithPriority => api::stream::create(call),
        op::cuStreamDestroy_v2 => api::stream::destroy(call),
        op::cuStreamWaitEvent => api::stream::wait_event(call),
        op::cuStreamQuery => api::stream::query(call),
        op::cuStreamSynchronize => api::stream::synchronise(call),
        op::cuEventCreate => api::event::create(call),
        op::cuEventDestroy_v2 => api::event::destroy(call),
        op::cuEventRecord => api::event::record(call),
        op::cuEventQuery => api::event::query(call),
        op::cuEventSynchronize => api::event::synchronise(call),
        op::cuEventElapsedTime_v2 => api::event::elapsed(call),
        op::cuDeviceGetDefaultMemPool => api::pool::of_device(call),
        op::cuMemPoolCreate => api::pool::create(call),
        op::cuMemPoolDestroy => api::pool::destroy(call),
        op::cuMemPoolTrimTo => api::pool::trim(call),
        op::cuMemPoolSetAttribute => api::pool::set_attribute(call),
        op::cuMemPoolGetAttribute => api::pool::attribute(call),
        op::cuMemPoolSetAccess => api::pool::set_access(call),
        op::cuMemPoolGetAccess => api::pool::get_access(call),
        op::cuMemPoolExportToShareableHandle => api::pool::export(call),
        op::cuMemPoolImportFromShareableHandle => api::pool::import(call),
        op::cuMemPoolExportPointer => api::pool::export_pointer(call),
        op::cuMemPoolImportPointer => api::pool::import_pointer(call),
        op::cuMemAllocFromPoolAsync => api::pool::allocate(call),
        op::cuMemFreeAsync => api::pool::free(call),
        op::cuMemAddressReserve => api::vmm::reserve(call),
        op::cuMemAddressFree => api::vmm::free(call),
        op::cuMemCreate => api::vmm::create(call),
        op::cuMemRelease => api::vmm::release(call),
        op::cuMemRetainAllocationHandle => api::vmm::retain(call),
        op::cuMemMap => api::vmm::map(call),
        op::cuMemUnmap => api::vmm::unmap(call),
        op::cuMemSetAccess => api::vmm::set_access(call),
        op::cuMemGetAccess => api::vmm::get_access(call),
        op::cuMemGetAllocationGranularity => api::vmm::granularity(call),
        op::cuMemExportToShareableHandle => api::vmm::export(call),
        op::cuMemImportFromShareableHandle => api::vmm::import(call),
        op::cuLinkCreate_v2 => api::link::create(call),
        op::cuLinkAddData_v2 => api::link::add(call),
        op::cuLinkComplete => api::link::complete(call),
        op::cuLinkDestroy => api::link::destroy(call),
        op::cuStreamWriteValue32..=op::cuStreamWaitValue64_v2 => api::memop::single(call),
        op::cuStreamBatchMemOp | op::cuStreamBatchMemOp_v2 => api::memop::batch(call),
        op::cuCtxEnablePeerAccess => api::peer::enable(call),
        op::cuCtxDisablePeerAccess => api::peer::disable(call),
        op::cuDeviceGetHostAtomicCapabilities | op::cuDeviceGetP2PAtomicCapabilities => {
            api::peer::atomics(call)
        }
        op::cuCtxGetExecAffinity => api::peer::affinity(call),
        op::cuCtxRecordEvent | op::cuCtxWaitEvent => api::peer::context_event(call),
        op::cuDeviceGetDevResource | op::cuCtxGetDevResource | op::cuGreenCtxGetDevResource => {
            api::green::resource(call)
        }
        op::cuDevSmResourceSplitByCount => api::green::split(call),
        op::cuDevResourceGenerateDesc => api::green::describe(call),
        op::cuGreenCtxCreate => api::green::create(call),
        op::cuGreenCtxRecordEvent | op::cuGreenCtxWaitEvent => api::green::event(call),
        op::cuGreenCtxStreamCreate => api::green::stream(call),
        op::cuIpcGetMemHandle => api::ipc::memory_handle(call),
        op::cuIpcOpenMemHandle_v2 => api::ipc::open_memory(call),
        op::cuIpcCloseMemHandle => api::ipc::close_memory(call),
        op::cuIpcGetEventHandle => api::ipc::event_handle(call),
        op::cuIpcOpenEventHandle => api::ipc::open_event(call),
        op::cuGraphCreate => api::graph::build::create(call),
        op::cuGraphDestroy => api::graph::build::destroy(call),
        op::cuGraphClone => api::graph::build::clone(call),
        op::cuGraphNodeFindInClone => api::graph::build::find_in_clone(call),
        op::cuGraphAddNode_v2 => api::graph::build::add(call),
        op::cuGraphNodeSetParams => api::graph::build::set(call),
        op::cuGraphExecNodeSetParams => api::graph::exec::set(call),
        op::cuGraphKernelNodeGetParams_v2 => api::graph::params::get(call),
        op::cuGraphDestroyNode => api::graph::build::destroy_node(call),
        op::cuGraphNodeGetType => api::graph::query::kind(call),
        op::cuGraphGetNodes | op::cuGraphGetRootNodes => api::graph::query::nodes(call),
        op::cuGraphGetEdges_v2 | op::cuGraphNodeGetDependencies_v2 | op::cuGraphNodeGetDependentNodes_v2 => {
            api::graph::query::edges(call)
        }
        op::cuGraphAddDependencies_v2 | op::cuGraphRemoveDependencies_v2 => {
            api::graph::build::dependencies(call)
        }
        op::cuGraphKernelNodeCopyAttributes => api::graph::query::copy_attributes(call),
        op::cuGraphKernelNodeGetAttribute => api::graph::query::attribute(call),
        op::cuGraphKernelNodeSetAttribute => api::graph::query::set_attribute(call),
        op::cuGraphConditionalHandleCreate => api::graph::build::conditional(call),
        op::cuGraphInstantiateWithParams => api::graph::exec::instantiate(call),
        op::cuGraphExecUpdate_v2 => api::graph::exec::update(call),
        op::cuGraphExecGetFlags => api::graph::exec::flags(call),
        op::cuGraphNodeSetEnabled => api::graph::exec::set_enabled(call),
        op::cuGraphNodeGetEnabled => api::graph::exec::enabled(call),
        op::cuGraphExecDestroy => api::graph::exec::destroy(call),
        op::cuGraphLaunch => api::graph::exec::launch(call),
        op::cuGraphUpload => api::graph::exec::upload(call),
        op::cuGraphDebugDotPrint => api::graph::object::print(call),
        op::cuUserObjectCreate => api::graph::object::create_object(call),
        op::cuUserObjectRetain | op::cuUserObjectRelease => api::graph::object::count_object(call),
        op::cuGraphRetainUserObject | op::cuGraphReleaseUserObject => api::graph::object::graph_object(call),
        op::cuDeviceGraphMemTrim => api::graph::memory::trim(call),
        op::cuDeviceTotalMem_v2 => api::memory::total(call),
        op::cuDeviceGetGraphMemAttribute => api::graph::object::memory_attribute(call),
        op::cuDeviceSetGraphMemAttribute => api::graph::object::set_memory_attribute(call),
        op::cuStreamBeginCapture_v2 => api::graph::capture::begin(call),
        op::cuStreamBeginCaptureToGraph => api::graph::capture::begin_to_graph(call),
        op::cuStreamEndCapture => api::graph::capture::end(call),
        op::cuStreamIsCapturing => api::graph::capture::status(call),
        op::cuStreamGetCaptureInfo_v3 => api::graph::capture::last(call),
        op::cuStreamUpdateCaptureDependencies_v2 => api::graph::capture::update(call),
        op::cuStreamCopyAttributes => api::graph::capture::copy_attributes(call),
        op::cuStreamGetAttribute => api::graph::capture::attribute(call),
        op::cuStreamSetAttribute => api::graph::capture::set_attribute(call),
        op::cuGraphAddMemcpyNode => api::graph::capture::copy(call),
        op::cuGraphAddHostNode => api::graph::capture::function(call),
        op::cuGraphAddChildGraphNode => api::graph::capture::launch(call),
        number => generic(call, number).unwrap_or_else(|| unknown(call)),
    }
}

/// An op that this server does not carry. One of the table is counted; any other is no call at all.
fn unknown(call: &Call<'_>) -> Answer {
    let number = call.header.op;
    match ROWS.iter().find(|row| row.number == number) {
        Some(row) if row.class == Class::Unsupported => {
            count(&call.session.stats.unsupported_calls);
            done()
        }
        Some(_) => Err(Failed::Call(CUresult::ERROR_NOT_SUPPORTED)),
        None => Err(Failed::Session(Fatal::Malformed(format!("unknown op {number}")))),
    }
}

macro_rules! generic_rows {
    ($({ $class:ident $number:literal $name:ident $twin:tt $reason:tt $params:tt })*) => {
        /// Runs a row that says everything: hold each parameter, call, reply each. `None` for any other row.
        fn generic(call: &mut Call<'_>, number: u16) -> Option<Answer> {
            $(generic_row! { $class call number $number $params })*
            None
        }
    };
}

macro_rules! generic_row {
    (forward $call:ident $asked:ident $number:literal ($($p:ident: $k:ty),*)) => {
        if $asked == $number {
            return Some((|| {
                let function = $call.driver().generic($number).ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
                // SAFETY: the symbol of this row, whose signature the row states; both are function pointers.
                let function = unsafe {
                    std::mem::transmute_copy::<_, unsafe extern "C" fn($(<$k as Param>::C),*) -> CUresult>(&function)
                };
                $(let mut $p = <$k as Param>::hold(&mut $call.fields)?;)*
                // SAFETY: values, or pointers to the locals above.
                unsafe { function($(<$k as Param>::pass(&mut $p)),*) }.ok()?;
                let mut _writer = $call.reply();
                $(<$k as Param>::reply(&$p, &mut _writer);)*
                done()
            })());
        }
    };
    (async $($rest:tt)*) => { generic_row! { forward $($rest)* } };
    ($class:ident $($rest:tt)*) => {};
}

for_each_driver_fn!(generic_rows);

/// Puts a host callback into a stream.
fn host_function(call: &mut Call<'_>) -> Answer {
    let number = call.get()?;
    let stream = call.get_stream()?;
    let wants_status = call.get::<u32>()? != 0;
    let before = call.session.deliveries.in_stream(stream);
    let user_data = Ticket::into_user_data(call.session, number, before);
    call.session.gate.settle(call.session);
    let driver = call.driver();
    // SAFETY: a stream of ours; the ticket lives until the driver gives it back.
    let queued = unsafe {
        if wants_status {
            driver.cuStreamAddCallback(stream, super::callbacks::stream_callback, user_data, 0)
        } else {
            driver.cuLaunchHostFunc(stream, super::callbacks::host_function, user_data)
        }
    };
    if let Err(error) = queued {
        // SAFETY: the driver refused it.
        unsafe { Ticket::reclaim(user_data) };
        return Err(error.into());
    }
    done()
}
