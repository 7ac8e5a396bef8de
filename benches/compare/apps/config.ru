# Answers with the process's number, /compute after 200 ms of work.
compute = lambda do
  ending = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 0.2
  nil while Process.clock_gettime(Process::CLOCK_MONOTONIC) < ending
end
run(lambda do |request|
  compute.call if request['PATH_INFO'] == '/compute'
  body = Process.pid.to_s
  [200, { 'content-type' => 'text/plain', 'content-length' => body.size.to_s }, [body]]
end)
