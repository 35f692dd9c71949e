// moesaic::Error becomes the Python exception of its kind in moesaic.errors.
#pragma once

namespace moesaic {

void register_errors();

}  // namespace moesaic
